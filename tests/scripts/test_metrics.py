"""The programs of scripts/metrics score lines for `kind: command`, here with stand-ins of their
packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mt.config.plugins import dotted_kinds, trust_kinds
from mt.evaluation.metrics.command import Config, build

SCRIPTS = Path(__file__).parents[2] / "scripts" / "metrics"
TORCH = """
class cuda:
    is_available = staticmethod(lambda: False)
import contextlib
inference_mode = contextlib.nullcontext
tensor = lambda rows, device: rows
ones_like = lambda rows: [[1] * len(rows[0])]
"""
COMET = """
class Model:
    def predict(self, samples, batch_size, gpus, progress_bar):
        print("a library that prints")
        class Found:
            scores = [float(s["mt"] == s["ref"]) + len(s["src"]) for s in samples]
        return Found
download_model = lambda name: name
load_from_checkpoint = lambda path: Model()
"""
MODELS = """
class MT5ForRegression:
    from_pretrained = classmethod(lambda cls, name: cls())
    to = lambda self, device: self
    eval = lambda self: self
    def __call__(self, input_ids, attention_mask):
        class Found:
            predictions = [len(input_ids[0])]
        return Found
"""
TRANSFORMERS = """
class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, name):
        return lambda text, max_length, truncation: {"input_ids": [*text.split(), "</s>"]}
"""
TEXTS = (["ab", "c"], ["x", "y"], [["x", "z"], ["x y", "y"]])


@pytest.fixture
def scored(tmp_path):
    """The result of a script, with the modules that it finds instead of the real ones."""

    def score(script, modules, *arguments):
        for name, text in modules.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text, encoding="utf-8")
        path = f"PYTHONPATH={tmp_path}"
        run = ["/usr/bin/env", path, sys.executable, str(SCRIPTS / script), *arguments]
        trust_kinds(dotted_kinds({"kind": "command", "run": run}))
        return build(Config(name="x", run=run, timeout=60.0), "en").score(*TEXTS)

    return score


def test_comet_is_the_mean_over_references(scored):
    metadata = "Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 2.2.7\n"
    modules = {
        "torch.py": TORCH, "comet/__init__.py": COMET,
        "unbabel_comet-2.2.7.dist-info/METADATA": metadata,
    }  # fmt: skip
    found = scored("comet.py", modules, "my/model")
    assert found.segments == [2 + 0.5, 1 + 0.5]
    assert found.signature.endswith("version:2.2.7/my/model")


def test_metricx_reads_source_translation_and_reference(scored, tmp_path):
    modules = {
        "torch.py": TORCH, "transformers.py": TRANSFORMERS, "repository/metricx24/models.py": MODELS
    }  # fmt: skip
    found = scored("metricx.py", modules, str(tmp_path / "repository"))
    assert found.segments == [6.5, 6.0]  # three labels, three texts, which have 1 or 2 words
    assert found.signature.endswith("version:24/google/metricx-24-hybrid-large-v2p6")
