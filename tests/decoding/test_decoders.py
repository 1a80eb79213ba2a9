"""Several models that translate and score as one."""

from __future__ import annotations

import io
import json
import sys

import pytest
import tiny_run
import torch

from mt.checkpoints import run_directory
from mt.cli import main
from mt.config.plugins import plugin
from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ModelError

native = plugin("engines", "native")
PAIRS = [
    Pair(source, target, "en", "de", f"test:{i}")
    for i, (source, target) in enumerate(zip(tiny_run.SOURCES, tiny_run.TARGETS, strict=True))
]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model of the same vocabulary and other weights."""
    return tiny_run.make(tmp_path_factory.mktemp("other"), seed=2)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A model of another vocabulary."""
    return tiny_run.make(tmp_path_factory.mktemp("foreign"), "whitespace")


def opened(*runs, **more):
    options = {"threads": 1, "precision": "fp32", **more}
    return open_engine(runs[0], EngineOptions(**options, ensemble_paths=runs[1:]))


def translated(engine):
    return [(each.text, each.score) for each in engine.translate(tiny_run.SOURCES)]


def gains(engine):
    return [each.token_log_probabilities for each in engine.score(PAIRS)]


def command(monkeypatch, capsys, *arguments, stdin=""):
    stream = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    code = main.run([*map(str, arguments), "--threads", "1", "--precision", "fp32"])
    return code, capsys.readouterr()


def test_a_model_with_itself_translates_and_scores_as_alone(run):
    alone, both = opened(run), opened(run, run)
    for (text, score), (expected, known) in zip(translated(both), translated(alone), strict=True):
        assert text == expected
        assert score == pytest.approx(known, abs=1e-5)
    for found, expected in zip(gains(both), gains(alone), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_scores_are_the_normalised_means_of_log_probabilities(run, other):
    engine = opened(run, other)
    models = [run_directory.open_run(path).model().eval() for path in (run, other)]
    vocabulary = engine.vocabulary
    different = 0
    for pair, found in zip(PAIRS, gains(engine), strict=True):
        source = torch.tensor([[*vocabulary.encode_source([pair.source])[0], 3]])
        target = torch.tensor([[2, *vocabulary.encode_target([pair.target])[0], 3]])
        with torch.inference_mode():
            each = [model(source, target[:, :-1])[0].log_softmax(-1) for model in models]
        mean = (sum(each) / 2).log_softmax(-1)  # [T, V]
        expected = mean.gather(1, target[0, 1:, None])[:, 0]
        assert found == pytest.approx(expected.tolist(), abs=1e-4)
        alone = each[0].gather(1, target[0, 1:, None])[:, 0]
        different += not torch.allclose(alone, expected, atol=1e-2)
    assert different == len(PAIRS)


@pytest.mark.parametrize("kind", ["beam", "greedy"])
def test_what_is_found_has_the_score_of_scoring_it_again(run, other, kind):
    engine = opened(run, other, search={"kind": kind}, alignments=True)
    lone = [text for text, _ in translated(opened(run, search={"kind": kind}))]
    found = list(engine.translate(tiny_run.SOURCES))
    assert [each.text for each in found] != lone
    ids = {piece: i for i, piece in enumerate(engine.vocabulary.pieces_target(range(408)))}
    for each in found:
        assert each.alignment is not None
        source = [ids[piece] for piece in each.source_tokens]
        target = [ids[piece] for piece in each.tokens]
        (scored,) = engine.searcher.force([([*source, 3], [*target, 3])])
        assert each.log_probabilities == pytest.approx(scored, abs=1e-4)


def test_alignments_are_the_mean_of_those_of_the_models(run, other):
    source = torch.tensor([[90, 100, 3]])
    tokens = torch.tensor([[[80, 120, 3]]])
    engines = [opened(run), opened(other), opened(run, other)]
    found = []
    for engine in engines:
        with engine.searcher.inference():
            found.append(engine.searcher.decoder.align(source, tokens))
    one, two, both = found
    torch.testing.assert_close(both, (one + two) / 2)
    assert not torch.allclose(one, two)


def test_the_order_of_the_models_changes_nothing(run, other):
    one, two = translated(opened(run, other)), translated(opened(other, run))
    assert [text for text, _ in one] == [text for text, _ in two]


def test_models_of_two_vocabularies_are_refused_before_their_weights_are_read(run, foreign):
    with pytest.raises(ModelError) as told:
        opened(run, foreign)
    assert told.value.code == "VOCAB-MISMATCH"
    digests = [run_directory.open_run(path).vocabulary.digest[:16] for path in (run, foreign)]
    assert all(part in str(told.value) for part in (str(run), str(foreign), *digests))
    held = run_directory.LoadedModel.model
    run_directory.LoadedModel.model = None
    try:
        with pytest.raises(ModelError, match="VOCAB-MISMATCH"):
            opened(run, foreign)
    finally:
        run_directory.LoadedModel.model = held


def test_an_ensemble_in_processes_finds_the_same(run, other):
    found, expected = translated(opened(run, other, processes=2)), translated(opened(run, other))
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])


def test_the_commands_take_several_runs(run, other, foreign, monkeypatch, capsys):
    lines = "".join(f"{line}\n" for line in tiny_run.SOURCES)
    expected = [text for text, _ in translated(opened(run, other))]
    code, told = command(monkeypatch, capsys, "translate", run, other, stdin=lines)
    assert (code, told.out.splitlines()) == (0, expected)
    code, told = command(monkeypatch, capsys, "translate", run, foreign, stdin=lines)
    assert (code, told.out) == (4, "")
    assert told.err.startswith("mt: error[VOCAB-MISMATCH]")

    files = ["--source", run.parent / "train.en", "--target", run.parent / "train.de"]
    code, told = command(monkeypatch, capsys, "score", run, other, *files)
    scores = [sum(each) for each in gains(opened(run, other))]
    assert [float(line) for line in told.out.split()] == pytest.approx(scores, abs=1e-3)
    code, told = command(monkeypatch, capsys, "eval", run, other, "--on", "test_one", "--json")
    assert (code, list(json.loads(told.out))) == (0, ["test_one"])
    kept = run / "hypotheses" / "test_one.txt"
    assert kept.read_text(encoding="utf-8").splitlines() == expected
