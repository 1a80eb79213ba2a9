"""A program of the user scores lines; however it fails, that is one error, and it is killed."""

from __future__ import annotations

import os
import time

import pytest
from metric_programs import log_of, make_program, section

from mt.config.plugins import dotted_kinds, trust_kinds
from mt.config.schema import EvaluationConfig
from mt.errors import ConfigError, MachineError, ModelError
from mt.evaluation import scoring
from mt.evaluation.metrics.command import Config, build

SOURCES = ["ein Haus", "zwei \u2028 Hunde", "\u00e4", ""]
HYPOTHESES = ["a house", "two dogs \U0001f600", "a b c", ""]
REFERENCES = [["a house", "two dogs", "x", ""], ["house", "two big dogs \U0001f600", "b c", "x"]]
EXPECTED = [0.2, 0.3, 0.2, 0.0]


def made(folder, how="well", **settings):
    """The metric of a program that the user has named."""
    value = section(folder, how, **settings)
    trust_kinds(dotted_kinds(value))
    return build(Config(**value), "en")


def scored(metric):
    return metric.score(SOURCES, HYPOTHESES, REFERENCES)


@pytest.mark.parametrize(("batch", "batches"), [(1, [1] * 4), (3, [3, 1]), (256, [4])])
def test_it_scores_every_line_whatever_the_batches(tmp_path, batch, batches):
    found = scored(made(tmp_path, batch=batch))
    assert found.segments == EXPECTED
    assert found.score == pytest.approx(sum(EXPECTED) / 4)
    assert log_of(tmp_path) == ["started", *(f"batch {size}" for size in batches)]


def test_its_version_is_in_the_signature(tmp_path):
    assert scored(made(tmp_path)).signature == "nrefs:2|mean:lines|version:fake_1_0"


def test_more_lines_than_a_pipe_holds_are_no_deadlock(tmp_path):
    lines = ["word " * 400] * 1000
    found = made(tmp_path, batch=1000).score(lines, lines, [lines])
    assert found.segments == [0.1] * 1000


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no version", "its first line is no version: 'no json'"),
        ("dies", "it ended before line 1, with exit code 3"),
        ("fails", "it ended with exit code 4"),
        ("text", "its answer to line 1 is no finite number: 'good'"),
        ("nan", "its answer to line 1 is no finite number: 'NaN'"),
        ("huge", "its answer to line 1 is no finite number: '1e999'"),
        ("too many", "it answers more numbers than there are lines"),
    ],
)
def test_each_failure_is_one_error_with_what_the_program_wrote(tmp_path, capsys, how, message):
    with pytest.raises(MachineError) as error:
        scored(made(tmp_path, how))
    assert str(error.value).startswith(f"mt: error[METRIC-COMMAND] fake: {message}\n")
    assert "fake: a word \\x1b[1m to the user" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "what", "timeout"),
    [
        ("silent", "its version", 0.3), ("deaf", "line 1", 1.5), ("child", "line 1", 1.5),
        ("too few", "line 4", 1.5),  # it waits for the next batch
    ],
)  # fmt: skip
def test_one_that_is_too_slow_is_killed_with_its_children(tmp_path, how, what, timeout):
    start = time.monotonic()
    with pytest.raises(MachineError, match=rf"did not answer {what} within {timeout} seconds"):
        scored(made(tmp_path, how, timeout=timeout))
    assert time.monotonic() - start < 20
    for line in log_of(tmp_path):
        if line.startswith("child"):
            assert is_gone(int(line.split()[1]))


def is_gone(pid):
    """Whether a process has ended, or is a zombie that nobody has waited for."""
    for _ in range(1000):
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
    return False


def test_a_program_that_is_not_there_is_an_error_of_the_recipe(tmp_path):
    value = {"name": "x", "run": [str(tmp_path / "nowhere"), "a"]}
    trust_kinds(dotted_kinds({"kind": "command", **value}))
    with pytest.raises(ConfigError, match=r"there is no program .*nowhere"):
        build(Config(**value), "en")


def test_a_program_that_the_user_has_not_named_is_never_started(tmp_path):
    value = section(tmp_path)
    with pytest.raises(ModelError, match=r"MODEL-TRUST.* evaluation.metrics: fake: .*fake\.py"):
        build(Config(**value), "en")
    trust_kinds(dotted_kinds({**value, "run": [*value["run"], "more"]}))
    with pytest.raises(ModelError, match="MODEL-TRUST"):  # another one is
        build(Config(**value), "en")
    assert log_of(tmp_path) == []


def test_it_is_one_of_the_metrics_and_left_out_without_sources(tmp_path):
    value = section(tmp_path, better="lower")
    trust_kinds(dotted_kinds(value))
    evaluation = EvaluationConfig(metrics=["chrf", value])
    assert EvaluationConfig(**evaluation.model_dump(mode="json")) == evaluation
    assert not evaluation.metric("fake").higher_is_better
    found = scoring.score_translations(HYPOTHESES, REFERENCES, "en", evaluation, SOURCES)
    assert found["fake"] == {"score": 0.175, "signature": "nrefs:2|mean:lines|version:fake_1_0"}
    alone = scoring.score_translations(HYPOTHESES, REFERENCES, "en", evaluation)
    assert list(alone) == ["chrF2"]


def test_the_packages_of_mt_are_not_those_of_the_program(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere/of/mt")
    program = make_program(tmp_path)
    text = (tmp_path / "fake.py").read_text(encoding="utf-8")
    (tmp_path / "fake.py").write_text(text.replace('"fake 1|0"', "str(sys.path)"))
    trust_kinds(dotted_kinds({"kind": "command", "run": program}))
    found = scored(build(Config(name="fake", run=program), "en"))
    assert "/nowhere" not in found.signature
