"""Each line of a test set is in one bucket of its length, and of how rare its words are."""

from __future__ import annotations

import pytest

from mt.checkpoints import run_directory
from mt.evaluation import buckets
from mt.runtime import console


def names(found):
    return {bucket.name: bucket.rows.tolist() for bucket in found}


def test_each_line_is_in_the_bucket_of_its_words():
    lines = ["", "one", "w " * 10, "w " * 11, "w " * 20, "w " * 60]
    found = buckets.group_by_length(lines, "en")
    assert names(found) == {"1-10": [1, 2], "11-20": [3, 4], "51+": [5]}
    assert {bucket.by for bucket in found} == {"source words"}


def test_without_spaces_two_characters_are_a_word():
    assert names(buckets.group_by_length(["我" * 20, "我" * 22], "zh")) == {
        "1-10": [0],
        "11-20": [1],
    }


def test_words_are_letters_in_lower_case_and_characters_without_spaces():
    assert buckets.word_splitter("en")("The HOUSE, 12 re-built!") == ["the", "house", "re", "built"]
    assert buckets.word_splitter("zh")("我家。2") == ["我", "家"]


def group_by_rarity(lines, language, recipe):
    counts = buckets.count_training_words(lines, language, recipe)
    return buckets.group_by_rarity(lines, language, counts)


@pytest.fixture
def recipe(run):
    return run_directory.read_recipe(run)


def test_a_line_is_as_rare_as_its_rarest_word_in_the_training_text(recipe):
    # "a" is five times in the training text, "dogs" once, "elephants" never.
    lines = ["A a A", "Dogs, a", "a dogs elephants", "17 !"]
    assert names(group_by_rarity(lines, "en", recipe)) == {"0": [2], "1-9": [0, 1]}


def test_counts_of_training_decide_the_bucket(recipe, monkeypatch):
    monkeypatch.setattr(buckets, "COUNTS", (0, 1, 2, 4))
    found = group_by_rarity(["a", "the", "dogs"], "en", recipe)
    assert names(found) == {"1": [2], "2-3": [1], "4+": [0]}


def test_without_the_training_text_there_are_no_such_buckets(recipe, monkeypatch, capsys):
    monkeypatch.setattr(console, "_warned", set())
    gone = recipe.data.train[0].model_copy(update={"source": "/nowhere/train.en"})
    data = recipe.data.model_copy(update={"train": (gone,)})
    away = recipe.model_copy(update={"data": data})
    assert buckets.count_training_words(["a"], "en", away) is None
    assert "warning[RARITY] the training text is not here" in capsys.readouterr().err
    assert buckets.count_training_words(["a"], "fr", recipe) is None  # it is of another language
