"""Laws of autotuning: micro-batches fit memory and hold the longest pair."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mt.models import transformer
from mt.runtime import files, memory
from mt.runtime.distributed import SINGLE
from mt.training import autotune
from mt.training.objectives import cross_entropy
from mt.training.step import ModelWithLoss


@pytest.fixture
def step(vocabulary):
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0.1
    )
    model = transformer.build(config, vocabulary)
    return ModelWithLoss(model, cross_entropy.CrossEntropy(model, 0.1), "fp32")


CORPUS = SimpleNamespace(source_lengths=np.array([3, 5, 20]), target_lengths=np.array([4, 30, 6]))
CPU = torch.device("cpu")
ALONE = {"processes": 1, "sharding": "none", "shapes": []}


def test_what_a_pass_keeps_grows_with_its_rows(step):
    one, four = (
        autotune.activation_bytes(step, autotune.full_batch(n, 20, 30, CPU)) for n in (1, 4)
    )
    assert 3.5 * one < four < 4.5 * one


def test_the_worst_micro_batches_are_full_and_have_the_longest_sides():
    longest, middling = autotune.worst_batches(CORPUS, 500, CPU)
    assert longest.source.shape == (10, 20)
    assert longest.labels.shape == (10, 30)
    assert middling.source.numel() + middling.labels.numel() <= 500


def test_micro_batches_shrink_where_memory_is_short_but_fit_a_pair(step, monkeypatch):
    found = []
    for room in (None, 1 << 40, 1 << 20, 1):
        monkeypatch.setattr(memory, "available_bytes", lambda room=room: room)
        found.append(autotune.find_cpu_micro_tokens(step, CORPUS, 100, 6144))
    assert found[:2] == [6144, 6144]
    assert 100 < found[2] < 6144
    assert found[3] == 100


@pytest.mark.parametrize(
    ("asked", "threads", "expected"),
    [
        ("auto", 1, []),
        (1, 1, []),
        (2, 2, ["threads 1 -> 2: the same data in the same order, other rounding"]),
    ],
)
def test_a_resume_keeps_the_threads_unless_others_are_asked_for(asked, threads, expected, tmp_path):
    earlier = {
        "device": "cpu", "threads": 1, "micro_tokens": 100, "compile": False, "precision": "fp32",
        "torch": torch.__version__,
    }  # fmt: skip
    files.write_json(tmp_path / "resolved.json", earlier)
    recipe = SimpleNamespace(runtime=SimpleNamespace(threads=asked, sharding="none"))
    lines = []
    found = autotune.autotune(
        recipe, tmp_path, None, None, CPU, 2 if asked == "auto" else asked,
        SimpleNamespace(log=lines.append), SINGLE,
    )  # fmt: skip
    assert found == {**earlier, "threads": threads, **ALONE}
    assert lines == expected


@pytest.mark.parametrize(
    ("plan", "pays"),
    [
        ({"max_steps": 9_999}, False), ({"max_steps": 10_000}, True),
        ({"max_epochs": 1_000}, True), ({"max_epochs": 999}, False),
        ({"max_steps": 50_000, "max_epochs": 10}, False), ({"max_minutes": 5.0}, True),
    ],
)  # fmt: skip
def test_a_long_run_on_a_gpu_earns_back_its_compilation(plan, pays):
    limits = {"max_steps": None, "max_epochs": None, **plan}
    recipe = SimpleNamespace(training=SimpleNamespace(**limits), batching=SimpleNamespace(tokens=4))
    data = SimpleNamespace(pairs=CORPUS, prepared=SimpleNamespace(train=CORPUS))
    assert autotune.pays_to_compile(recipe, data, torch.device("cuda")) is pays
    assert not autotune.pays_to_compile(recipe, data, CPU)
