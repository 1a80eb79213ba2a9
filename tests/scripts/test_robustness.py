"""Variants of a test set: what is changed, what must be kept, and the table."""

from __future__ import annotations

import json
import random

import pytest
from script_module import load_script

SOURCES = ["A man sits.", "Two dogs are playing outside!"]
REFERENCES = ["Ein Mann sitzt.", "Zwei Hunde spielen draußen!"]


@pytest.fixture(scope="module")
def script():
    return load_script("robustness")


def test_only_the_source_changes_but_for_its_end_mark(script):
    assert script.vary("as it is", SOURCES, REFERENCES, 1) == (SOURCES, REFERENCES, [])
    assert script.vary("capitals", SOURCES, REFERENCES, 1)[0][0] == "A MAN SITS."
    assert script.vary("title case", SOURCES, REFERENCES, 1)[0][0] == "A Man Sits."
    typed, wanted, _ = script.vary("typing errors", SOURCES, REFERENCES, 1)
    assert wanted == REFERENCES
    assert all(a != b for a, b in zip(typed, SOURCES, strict=True))
    assert script.vary("no end mark", SOURCES, REFERENCES, 1)[:2] == (
        ["A man sits", "Two dogs are playing outside"],
        ["Ein Mann sitzt", "Zwei Hunde spielen draußen"],
    )


def test_two_lines_become_one_on_both_sides(script):
    three = ([*lines, "x"] for lines in (SOURCES, REFERENCES))
    joined = [" ".join(SOURCES)], [" ".join(REFERENCES)], []
    assert script.vary(script.TWO, *three, 1) == joined


@pytest.mark.parametrize("variant", ["number", "address", "placeholder", "unknown script"])
def test_both_sides_end_in_what_must_be_kept(script, variant):
    changed, wanted, ends = script.vary(variant, SOURCES, REFERENCES, 1)
    assert [a.removesuffix(f" {end}") for a, end in zip(changed, ends, strict=True)] == SOURCES
    assert [a.removesuffix(f" {end}") for a, end in zip(wanted, ends, strict=True)] == REFERENCES
    assert len(set(ends)) == 2
    assert script.vary(variant, SOURCES, REFERENCES, 1)[2] == ends
    assert script.vary(variant, SOURCES, REFERENCES, 2)[2] != ends
    assert script.ENDS[variant](random.Random(3))


def test_a_model_has_a_row_for_each_variant(script, run, capsys):
    assert script.main([str(run), "--json", "--threads", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["variant"] for row in rows] == [*script.SOURCE_CHANGES, script.TWO, *script.ENDS]
    assert [row["kept"] is None for row in rows] == [True] * 7 + [False] * 4
    assert all(0 <= row["repeated"] <= 1 for row in rows)


def test_an_unknown_test_set_is_refused(script, run):
    with pytest.raises(SystemExit, match="--on other"):
        script.main([str(run), "--on", "other"])


def test_what_cannot_be_measured_is_told_in_two_lines(script, run, capsys):
    assert script.main(["nowhere"]) == 4
    assert script.main([str(run), "--set", "model.norm=post"]) == 2
    assert capsys.readouterr().err.count("\n") == 4
