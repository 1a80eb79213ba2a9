"""docs/reliability.md names each case once, and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
GROUPS = {
    "C": 22, "S": 8, "N": 6, "D": 8, "X": 14, "I": 20, "G": 14, "W": 18, "T": 14, "L": 4, "P": 14,
}  # fmt: skip
"""The cases of each group, whose table has them all or is not there."""
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows(text: str) -> list[tuple[str, str, str]]:
    """(id, promise, test or reason) of each row of the tables."""
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    stripped = [[cell.strip() for cell in row] for row in cells]
    return [tuple(row) for row in stripped if re.fullmatch(r"[A-Z]\d\d", row[0])]


def expected(found: set[str]) -> set[str]:
    """The ids of the groups that have a row."""
    groups = {each[0] for each in found}
    return {f"{group}{number:02d}" for group in groups for number in range(1, GROUPS[group] + 1)}


def functions_of(path: Path) -> set[str]:
    """The test functions of a file, those of its classes, too."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def absent(text: str) -> list[str]:
    """The tests that a text names and that do not exist."""
    return [
        f"{file}::{name}" for file, name in TEST.findall(text)
        if not (ROOT / file).is_file() or (name and name not in functions_of(ROOT / file))
    ]  # fmt: skip


def test_each_case_has_one_row():
    found = [row[0] for row in rows(PAGE.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(expected(set(found)))
    assert {each[0] for each in found} == set(GROUPS)


def test_each_case_has_a_test_or_a_reason():
    for row in rows(PAGE.read_text(encoding="utf-8")):
        assert len(row) == 3, row
        case, promise, held = row
        assert promise, case
        assert TEST.search(held) or held.startswith("does not apply: "), case


def test_each_test_that_is_named_exists():
    assert absent(PAGE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`tests/test_reliability_table.py::test_each_case_has_one_row`", 0),
        ("`tests/test_reliability_table.py`", 0),
        ("`tests/test_reliability_table.py::test_no_such`", 1),
        ("`tests/no_such.py::test_each_case_has_one_row`", 1),
    ],
)
def test_a_test_that_does_not_exist_is_noticed(text, missing):
    assert len(absent(text)) == missing


def test_a_case_that_is_missing_or_there_twice_is_noticed():
    text = "| L01 | a | b |\n| L02 | a | b |\n| L02 | a | b |\n| L04 | a | b |\n"
    found = [row[0] for row in rows(text)]
    assert sorted(found) != sorted(expected(set(found)))
    assert expected(set(found)) == {"L01", "L02", "L03", "L04"}
