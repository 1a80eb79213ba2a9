"""What a sample says of languages, scripts and the vocabulary."""

import pytest
from prepared_corpora import GOOD, recipe_of

from mt.data import sample_figures
from mt.data.sample_figures import describe_sample

ENGLISH = "The committee of the parliament will discuss this report again next week."
GERMAN = "Der Ausschuss des Parlaments wird diesen Bericht nächste Woche wieder besprechen."


def test_swapped_sides_are_counted(folder):
    pairs = [(ENGLISH, GERMAN)] * 3 + [(GERMAN, ENGLISH)] * 2 + [("Hi.", "Na.")]
    found = describe_sample(recipe_of(folder), pairs)["languages"]
    assert (found["judged"], found["swapped"], found["known"]) == (5, 2, [True, True])
    assert found["found"] == [[("en", 3), ("de", 2)], [("de", 3), ("en", 2)]]


def test_without_the_identifier_nothing_is_said_of_languages(folder, monkeypatch):
    def missing():
        raise ImportError

    monkeypatch.setattr(sample_figures, "langid", missing)
    assert describe_sample(recipe_of(folder), GOOD)["languages"] is None


def test_the_share_of_the_script_is_that_of_letters(folder):
    found = describe_sample(recipe_of(folder), [("abcd дом", "ab!"), ("abc", "")])["scripts"]
    assert found[0] == {"script": "Latn", "share": pytest.approx((4 / 7 + 1) / 2)}
    assert found[1] == {"script": "Latn", "share": 1.0}


def test_characters_that_no_piece_has_are_spelled_in_bytes(folder):
    rare = "".join(chr(0x4E00 + number) for number in range(60))
    recipe = recipe_of(folder)
    covering = recipe.vocabulary.model_copy(update={"character_coverage": 0.999})
    recipe = recipe.model_copy(update={"vocabulary": covering})
    found = describe_sample(recipe, [*GOOD * 2, (rare, "c")])["vocabulary"]
    source, target = found["sides"]["source"], found["sides"]["target"]
    assert len(source["spelled"]) == sample_figures.MOST_SHOWN
    assert {(rare[number], 1) for number in range(60)} >= set(source["spelled"])
    assert target["bytes"] == 0 < source["bytes"] < 0.01
    assert 1 < source["fertility"] < 8


def test_pairs_that_are_too_long_are_counted(folder):
    found = describe_sample(recipe_of(folder), [*GOOD, ("word " * 200, "kurz")])["vocabulary"]
    assert found["truncated"] == 1


def test_a_vocabulary_that_cannot_be_learned_is_a_problem_and_no_error(folder):
    found = describe_sample(recipe_of(folder, size=5000), GOOD)["vocabulary"]
    assert "problem" in found
