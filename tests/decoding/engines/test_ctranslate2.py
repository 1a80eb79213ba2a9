"""The CTranslate2 engine: our search, our limits, no torch; what it cannot do is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from mt.cli import main
from mt.config.plugins import plugin
from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions, Sentence
from mt.errors import ConfigError, ModelError
from mt.evaluation import evaluate
from mt.export import export
from mt.runtime import files
from mt.special_tokens import END, FIRST_PIECE

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
engine_plugin = plugin("engines", "ctranslate2")
ONE = EngineOptions(threads=1, precision="fp32")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("ctranslate2") / "exported"
    return export.export_model(run, "ctranslate2", out).path


@pytest.fixture(scope="module")
def ours(run):
    return open_engine(run, EngineOptions(threads=1, precision="fp32"))


@pytest.fixture(scope="module")
def theirs(folder):
    return open_engine(folder, ONE)


def options(**more):
    return EngineOptions(threads=1, precision="fp32", **more)


def test_one_sentence_needs_no_torch(folder):
    code = (
        "import sys; from mt.cli import main as cli; code = cli.run(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'datasets', 'sacrebleu', 'mt.decoding.engines.native'}; "
        "print(*(heavy & set(sys.modules)), sep='', end='', file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "translate", str(folder)], input="A man sleeps.\n",
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert all("warning[TRUNCATED]" in line for line in done.stderr.splitlines())
    assert done.stdout.count("\n") == 1


def test_every_sentence_ends_within_its_own_limit(theirs):
    sentences = [Sentence([80, 90, 100, END], length) for length in (2, 5, 3, 30, 2)]
    for kind in ("greedy", "beam"):
        config = plugin("search", kind).Config(kind=kind)
        found = list(theirs.searcher.search(sentences, config, ONE))
        for sentence, each in zip(sentences, found, strict=True):
            for one in each:
                assert one.tokens[-1] == END
                assert one.tokens.count(END) == 1
                assert len(one.tokens) <= sentence.max_length


def test_no_reserved_piece_is_ever_found(theirs):
    """The untrained model likes them as well as others."""
    sentences = [Sentence([i, i + 1, END], 25) for i in range(70, 130)]
    config = plugin("search", "beam").Config(kind="beam", beams=4)
    for each in theirs.searcher.search(sentences, config, options(n_best=4)):
        assert len(each) == 4
        for one in each:
            assert min(one.tokens[:-1], default=FIRST_PIECE) >= FIRST_PIECE


@pytest.mark.parametrize("search", [
    {"kind": "greedy"}, {"beams": 1}, {"beams": 3}, {"beams": 8}, {"beams": 3, "min_length": 0},
    {"beams": 8, "min_length": 12}, {"beams": 3, "length_penalty": 0.0},
])  # fmt: skip
def test_both_engines_search_alike(search, tmp_path):
    """With a trained model, where its hypotheses end by themselves."""
    run = shutil.copytree(GOLDEN / "transformer", tmp_path / "run", symlinks=True)
    export.export_model(run, "ctranslate2", tmp_path / "out", sample=GOLDEN / "source.txt")
    lines = (GOLDEN / "source.txt").read_text().splitlines()
    ours, theirs = (
        list(open_engine(path, options(search=search)).translate(lines))
        for path in (run, tmp_path / "out")
    )
    ended = [number for number, each in enumerate(ours) if not each.truncated]
    assert len(ended) >= len(lines) - 2
    for number in ended:
        assert theirs[number].tokens == ours[number].tokens
        assert theirs[number].text == ours[number].text
        assert len(ours[number].tokens) >= search.get("min_length", 1)


def test_forced_scores_are_ours(ours, theirs):
    pairs = [Pair(s, t, "en", "de", "x") for s in tiny_run.SOURCES for t in (*tiny_run.TARGETS, "")]
    for a, b in zip(ours.score(pairs), theirs.score(pairs), strict=True):
        assert b.tokens == a.tokens
        assert b.token_log_probabilities == pytest.approx(a.token_log_probabilities, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_score_is_its_tokens_over_their_length(theirs, penalty):
    more = options(search={"length_penalty": penalty}, token_scores=True, n_best=2)
    for each in theirs.translate(tiny_run.SOURCES, more):
        for one in each.alternatives:
            assert len(one.log_probabilities) == len(one.tokens) + 1
            length = len(one.log_probabilities) ** penalty
            assert one.score == pytest.approx(sum(one.log_probabilities) / length, rel=1e-3)
        ranked = [one.score for one in each.alternatives]
        assert ranked == sorted(ranked, reverse=True)


def test_a_forced_prefix_begins_the_translation_and_counts(ours, theirs):
    prefixes = ["Zwei Hunde", "", "ein Haus"]
    more = {"prefixes": prefixes, "search": {"beams": 1}, "token_scores": True}
    found = list(theirs.translate(tiny_run.SOURCES[:3], options(**more)))
    for each, prefix in zip(found, prefixes, strict=True):
        assert each.text.startswith(prefix)
    expected = list(ours.translate(tiny_run.SOURCES[:3], options(**more)))
    assert [each.text for each in found] == [each.text for each in expected]
    for a, b in zip(expected, found, strict=True):
        assert b.score == pytest.approx(a.score, rel=1e-3)


def test_a_prefix_that_ends_in_a_space_and_what_the_limit_ended_are_as_in_ours(ours, theirs):
    limit = {"kind": "greedy", "max_length_ratio": 0.5, "max_length_extra": 6}
    more = options(prefixes=["Zwei Hunde ", "ein Ha\t", " "], search=limit, token_scores=True)
    expected, found = (list(each.translate(tiny_run.SOURCES[:3], more)) for each in (ours, theirs))
    assert [each.text for each in found] == [each.text for each in expected]
    assert found[0].text.startswith("Zwei Hunde ")
    assert [each.truncated for each in found] == [each.truncated for each in expected]
    assert any(each.truncated for each in found)


def test_alignments_are_ours(ours, theirs):
    more = options(alignments=True, search={"beams": 1})
    for a, b in zip(
        ours.translate(tiny_run.SOURCES, more), theirs.translate(tiny_run.SOURCES, more),
        strict=True,
    ):  # fmt: skip
        assert a.tokens == b.tokens
        for mine, other in zip(a.alignment[:-1], b.alignment[:-1], strict=True):
            assert other == pytest.approx(mine, abs=1e-4)


def test_order_blank_lines_and_workers(theirs, folder):
    lines = [*tiny_run.SOURCES, "", *tiny_run.SOURCES[::-1], " "] * 20
    alone = {line: next(iter(theirs.translate([line]))).text for line in set(lines)}
    for more in ({"threads": 1, "processes": 2}, {"threads": 2}, {}):
        engine = open_engine(folder, EngineOptions(batch_tokens=100, **more))
        assert [each.text for each in engine.translate(lines)] == [alone[line] for line in lines]
    assert list(theirs.translate([])) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"search": {"length_norm": "gnmt"}}, "search.length_norm"),
        ({"search": {"coverage_penalty": 0.2}}, "search.coverage_penalty"),
        ({"n_best": 9}, "search.beams"),
        ({"target_language": "zh"}, "translates to de"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(theirs, more, told):
    with pytest.raises(ConfigError, match=told):
        list(theirs.translate(["Dogs."], options(**more)))


@pytest.mark.parametrize("kind", ["diverse", "mbr"])
def test_another_kind_of_search_is_refused_by_name(theirs, kind):
    with pytest.raises(ConfigError, match=rf"search\.kind.*no {kind} search"):
        list(theirs.translate(["Dogs."], options(search={"kind": kind})))


def test_samples_are_different_and_ranked(theirs):
    more = options(search={"kind": "sampling", "top_k": 20}, n_best=4, token_scores=True)
    for each in theirs.translate(tiny_run.SOURCES, more):
        scores = [one.score for one in each.alternatives]
        assert scores == sorted(scores, reverse=True)
        assert len({one.text for one in each.alternatives}) > 1
        for one in each.alternatives:
            assert one.score == pytest.approx(sum(one.log_probabilities))


@pytest.mark.parametrize("more", [{"checkpoint": "best"}, {"ensemble_paths": (Path("x"),)}])
def test_options_of_runs_are_refused(folder, more):
    with pytest.raises(ConfigError, match="one model"):
        open_engine(folder, options(**more))


def damage(path, name, data):
    (path / name).write_bytes(data)


def test_a_folder_that_is_not_ours_or_damaged_is_reported(folder, tmp_path):
    cases = {
        "CT2-FOREIGN": lambda path: (path / "mt.json").unlink(),
        "mt.json: damaged": lambda path: damage(path, "mt.json", b"{"),
        "CT2-NEWER": lambda path: damage(path, "mt.json", b'{"format": 9}'),
        "does not have the bytes": lambda path: damage(path, "model.bin", b"x" * 100),
        "vocabulary": lambda path: damage(path, "vocabulary.model", b"x"),
        "shared_vocabulary.json: No such file": lambda path: (
            path / "shared_vocabulary.json"
        ).unlink(),
    }
    for number, (told, change) in enumerate(cases.items()):
        copy = shutil.copytree(folder, tmp_path / str(number))
        change(copy)
        with pytest.raises(ModelError, match=told) as error:
            open_engine(copy, ONE)
        assert error.value.exit_code == 4


def test_a_setting_that_is_none_is_reported(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "mt.json").read_text())
    del about["languages"]
    damage(copy, "mt.json", json.dumps(about).encode())
    with pytest.raises(ModelError, match="CT2-DAMAGED"):
        open_engine(copy, ONE)


@pytest.mark.parametrize("change", [{"add_source_eos": 0}, {"decoder_start_token": "x"}])
def test_settings_that_ctranslate2_would_trip_over_are_reported(change, folder, tmp_path):
    """They are those that the folder says it was written with; a stranger can write both."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = {**json.loads((copy / "config.json").read_text()), **change}
    (copy / "config.json").write_text(json.dumps(settings))
    about = json.loads((copy / "mt.json").read_text())
    about["files"]["config.json"] = files.sha256(copy / "config.json")
    del about["digest"]
    (copy / "mt.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"config\.json: damaged"):
        open_engine(copy, ONE)


def test_it_is_evaluated_in_its_folder(folder, capsys):
    assert main.run(["eval", str(folder), "--on", "test_one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"test_one"}
    assert (folder / "hypotheses" / "test_one.txt").is_file()
    assert len(evaluate.sample_translations(folder, "test_one", 1)) == 1
