"""From two text files to a model that has learned its task, through the commands."""

from __future__ import annotations

import io
import json
import random

import pytest

from mt.cli import main
from mt.config import recipe
from mt.decoding import translate
from mt.decoding.types import EngineOptions
from mt.training import loop

RECIPE = """
languages: {source: en, target: de}
data:
  train: [{kind: text, source: train.source, target: train.target}]
  valid: {kind: text, source: valid.source, target: valid.target}
  test: {reversed: {kind: text, source: valid.source, target: valid.target}}
  max_length: 16
vocabulary: {kind: whitespace}
model:
  {d_model: 64, n_heads: 4, d_ff: 128, encoder_layers: 1, decoder_layers: 1, dropout: 0, norm: pre}
optimizer: {learning_rate: 5.0e-3}
schedule: {kind: linear, warmup_steps: 50}
batching: {tokens: 600}
training: {max_steps: 450, validate_every: 225, save_every: 1000, report_every: 50, ema: 0.98}
runtime: {precision: fp32, threads: 1, device: cpu}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that reverses its input, two to seven words of twelve."""
    folder = tmp_path_factory.mktemp("reverse")
    draw = random.Random(1)
    seen = set()
    while len(seen) < 2600:
        seen.add(tuple(draw.choices("abcdefghijkl", k=draw.randint(2, 7))))
    sentences = sorted(seen)
    draw.shuffle(sentences)
    for name, part in (("valid", sentences[:100]), ("train", sentences[100:])):
        (folder / f"{name}.source").write_text("".join(" ".join(s) + "\n" for s in part))
        (folder / f"{name}.target").write_text("".join(" ".join(s[::-1]) + "\n" for s in part))
    (folder / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(folder / "cache"))
        loop.train(recipe.load(folder / "recipe.yaml")[0], folder / "run")
    return folder / "run"


def test_it_learns_to_reverse(run):
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["valid_bleu"] > 90
    assert last["valid_perplexity"] < 1.3


def test_translate_reads_lines_and_writes_as_many(run, tmp_path):
    engine = translate.open_engine(run, EngineOptions())
    out = io.StringIO()
    lines = b"a b c\n\n   \nc a\x0cb\nk l"
    translate.translate_lines(engine, io.BytesIO(lines), out)
    found = out.getvalue().split("\n")
    assert found[0] == "c b a"
    assert found[1:3] == ["", ""]
    assert found[4] == "l k"
    assert len(found) == 6


def test_beams_find_what_greedy_finds_or_better(run):
    lines = ["a b c d", "l k j", "e e f"]
    sums = {"length_penalty": 0.0}
    scores = []
    for search in ({"kind": "greedy"}, {"beams": 1, **sums}, {"beams": 6, **sums}):
        engine = translate.open_engine(run, EngineOptions(search=search, precision="fp32"))
        scores.append([t.score for t in engine.translate(lines)])
    assert scores[0] == pytest.approx(scores[1])
    assert all(wide >= narrow - 1e-5 for wide, narrow in zip(scores[2], scores[1], strict=True))


def test_metrics_have_what_is_promised(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    report = next(line for line in lines if "loss" in line)
    assert {
        "step", "epoch", "loss", "learning_rate", "grad_norm", "target_tokens",
        "target_tokens_per_second", "padding_fraction", "data_wait_fraction",
        "peak_memory_bytes", "seconds",
    } <= report.keys()  # fmt: skip
    validation = next(line for line in lines if "valid_loss" in line)
    assert {"valid_loss", "valid_perplexity", "valid_bleu", "valid_chrf"} <= validation.keys()


def test_the_run_directory_is_as_promised(run):
    names = {path.name for path in run.iterdir()}
    assert {
        "config.yaml", "resolved.json", "vocabulary.json", "metrics.jsonl", "tensorboard",
        ".lock", "checkpoints", "best", "report.json",
    } <= names  # fmt: skip
    report = json.loads((run / "report.json").read_text())
    assert report


def test_the_attention_map_is_in_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert "valid/cross_attention" in board.Tags()["images"]
    assert {"train/loss", "valid/bleu"} <= set(board.Tags()["scalars"])


def test_eval_prints_one_object_with_signatures(run, capsys):
    code = main.run(["eval", str(run), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["reversed"]["BLEU"]["score"] > 90
    assert "tok:13a" in found["reversed"]["BLEU"]["signature"]
    assert {"chrF2", "TER"} <= found["reversed"].keys()
