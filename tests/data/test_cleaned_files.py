"""Clean corpora as text files: lines in are lines kept and lines dropped."""

from collections import Counter

import pytest
from prepared_corpora import GOOD, recipe_of, write_pairs

from mt.config.schema import DEFAULT_RULES
from mt.data.cleaned_files import COLUMNS, format_counts, with_default_rules, write_clean
from mt.errors import ConfigError, DataError

BAD = [("a <br> b", "c <br> d"), ("x\ty 17 z", "x\ty 71 z"), ("", "x"), GOOD[3]]


def clean(folder, *, dropped=None, **data):
    made = with_default_rules(recipe_of(folder, **data).data)
    return made, write_clean(made, folder / "clean", dropped, lambda line: None)


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_kept_pairs_stay_in_order_and_the_others_have_their_reason(folder, tmp_path):
    pairs = [*GOOD[:5], BAD[0], BAD[1], *GOOD[5:9], BAD[2], BAD[3]]
    write_pairs(folder, "dirty", pairs)
    data, (counts,) = clean(folder, train=("dirty",), dropped=tmp_path / "dropped.tsv")
    assert sorted(path.name for path in (folder / "clean").iterdir()) == ["train.de", "train.en"]
    kept = list(zip(*(lines(folder / "clean" / f"train.{c}") for c in ("en", "de")), strict=True))
    assert kept == GOOD[:9]
    assert counts == Counter(pairs=13, markup=1, numbers=1, empty=1, duplicates=1)
    head, *rows = (line.split("\t") for line in lines(tmp_path / "dropped.tsv"))
    assert tuple(head) == COLUMNS
    assert rows == [
        [f"{folder}/dirty.en:6", "markup", "<br>", *BAD[0]],
        [f"{folder}/dirty.en:7", "numbers", "17", "x y 17 z", "x y 71 z"],
        [f"{folder}/dirty.en:12", "empty", "", *BAD[2]],
        [f"{folder}/dirty.en:13", "duplicates", "pair", *BAD[3]],
    ]
    table = [line.split() for line in format_counts(data, [counts])]
    assert ["pairs", "13"] in table
    assert ["kept", "9", "69.23%"] in table
    assert ["markup", "1", "7.69%"] in table
    assert len(table) == 4 + len(DEFAULT_RULES)


def test_several_corpora_are_several_files_and_columns(folder):
    write_pairs(folder, "more", [("Good night to all.", "Gute Nacht an alle."), BAD[0]])
    data, counts = clean(folder, train=("train", "more"))
    names = sorted(path.name for path in (folder / "clean").iterdir())
    assert names == ["train.0.de", "train.0.en", "train.1.de", "train.1.en"]
    assert lines(folder / "clean" / "train.1.en") == ["Good night to all."]
    head, pairs, *_ = (line.split() for line in format_counts(data, counts))
    assert head == ["train.0", "train.1", "all", "share"]
    assert [int(number) for number in pairs[1:]] == [len(GOOD), 2, len(GOOD) + 2]


def test_the_rules_of_the_recipe_come_first(folder):
    data, (counts,) = clean(folder, clean=[{"kind": "length", "most": 4}], train=("valid",))
    assert [rule.kind for rule in data.clean] == ["length"]
    assert counts == Counter(pairs=2)


def test_nothing_left_is_an_error_and_leaves_nothing(folder, tmp_path):
    write_pairs(folder, "bad", [BAD[0], BAD[0], BAD[1]])
    with pytest.raises(DataError, match="none of 3 pairs is left; 2 dropped as markup"):
        clean(folder, train=("bad",), dropped=tmp_path / "dropped.tsv")
    assert not (folder / "clean").exists()
    assert not (tmp_path / "dropped.tsv").exists()


def test_nothing_of_the_user_is_replaced(folder, tmp_path):
    (folder / "clean").mkdir()
    (folder / "clean" / "mine").touch()
    with pytest.raises(ConfigError, match="OUTPUT-EXISTS"):
        clean(folder)
    (folder / "clean" / "mine").unlink()
    (tmp_path / "dropped.tsv").touch()
    with pytest.raises(ConfigError, match="OUTPUT-EXISTS"):
        clean(folder, dropped=tmp_path / "dropped.tsv")
    clean(folder)
    assert (folder / "clean" / "train.en").exists()
