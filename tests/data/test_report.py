"""The report counts what is planted, wherever it is, and however many processes read."""

import pytest
from prepared_corpora import GOOD, recipe_of, write_pairs

from mt.data import encode, report
from mt.data.report import CELLS, LONGEST, MATCHES, describe_data


def described(folder, pairs, *, valid=(("Fresh words.", "Frische Worte."),), **data):
    write_pairs(folder, "dirty", pairs)
    write_pairs(folder, "valid", valid)
    return describe_data(recipe_of(folder, train=("dirty",), **data), lambda line: None)


def test_sizes_and_lengths_are_counted(folder):
    found = described(folder, [*GOOD[:6], ("x " * 100, "one two")])
    (corpus,) = found["train"]
    assert corpus["pairs"] == 7
    assert corpus["words"] == [6 * 5 + 100, 6 * 6 + 2]
    assert corpus["lengths"][0][5] == corpus["lengths"][1][6] == 6
    assert corpus["lengths"][0][LONGEST] == 1
    assert sum(map(sum, corpus["cells"])) == 7
    assert corpus["cells"][CELLS][2 * CELLS // LONGEST] == 1


def test_repeated_texts_and_pairs_are_counted(folder):
    a, b = GOOD[:2]
    found = described(folder, [a, a, (a[0], b[1]), b, a])
    assert found["train"][0]["repeated"] == {"pair": 2, "source": 3, "target": 3}


@pytest.mark.parametrize("change", range(len(MATCHES)))
def test_leaks_are_counted_in_each_way(folder, change):
    held = ("The Mountain is high.", "Der Berg ist hoch.")
    leaks = [
        held, ("the mountain is high!", "der Berg ist hoch"), ("The mountain is high", "Hallo."),
        ("Hello.", "Der Berg, ist hoch."),
    ]  # fmt: skip
    counts = [(1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 1, 0), (0, 0, 0, 1)]
    valid = [held, ("Something else.", "Etwas anderes.")]
    found = described(folder, [*GOOD, leaks[change]], valid=valid)
    leaked = found["held_out"]["valid"]
    assert leaked["pairs"] == 2
    assert tuple(leaked["leaked"][way] for way in MATCHES) == counts[change]
    assert (
        leaked["examples"] == [] or leaked["examples"][0]["origin"] == f"dirty.en:{len(GOOD) + 1}"
    )


def test_suspects_have_their_rule_value_and_line(folder):
    found = described(folder, [GOOD[0], ("a <br> b", "c <br> d"), GOOD[1]])
    (suspect,) = found["train"][0]["found"]
    assert (suspect["rule"], suspect["pairs"]) == ("markup", 1)
    example = {"value": "<br>", "origin": "dirty.en:2", "source": "a <br> b", "target": "c <br> d"}
    assert suspect["examples"] == [example]


def test_no_pair_at_all_is_described_as_well(folder):
    found = described(folder, [("", "")] * 3)
    assert found["train"][0]["found"][0]["rule"] == "empty"


def test_control_characters_of_the_data_are_escaped(folder):
    found = described(folder, [("a <br>\x1b[31m b", "c <br> d")])
    text = str(found["train"][0]["found"])
    assert "\x1b" not in text
    assert "markup" in text or "control" in text


def test_several_processes_find_the_same(folder, monkeypatch):
    monkeypatch.setattr(encode, "CHUNK_PAIRS", 50)
    pairs = [*GOOD, *GOOD[:30], ("a <br> b", "c <br> d")]
    valid = [GOOD[9], ("Fresh words.", "Frische Worte.")]
    assert len(GOOD) > 4 * 50
    both = [described(folder, pairs, valid=valid, processes=n) for n in (1, 2)]
    assert both[0] == both[1]
    assert both[0]["train"][0]["repeated"]["pair"] == 30
    assert both[0]["format"] == report.FORMAT
