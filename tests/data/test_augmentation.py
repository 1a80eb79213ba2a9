"""Augmentation changes the pairs that it says, as often as it says, and nothing else."""

import random

import numpy as np
import pytest
from sampled_vocabularies import LINES, learned, pairs_of, sentences

from mt.config.schema import AugmentConfig, Languages, VocabularyConfig
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.data import augmentation
from mt.data.augmentation import Augmenter, change_source
from mt.data.corpus import EncodedPairs
from mt.errors import ConfigError
from mt.special_tokens import END, MASK
from mt.vocabulary.learn import learn_vocabulary

TEXT = ["The ox went up, slowly.", "Is it new?", "Lower winter water over under!", "wir, wider."]


@pytest.fixture(scope="module")
def known():
    return learned("bpe")


def sources(known, pairs):
    """The text of each source."""
    ids = [pairs.source(row).tolist()[:-1] for row in range(len(pairs))]
    return known.source.decode(ids)


def augmented(known, pairs, seed=1, max_length=1000, **shares):
    return Augmenter(AugmentConfig(**shares), known, max_length)(pairs, seed, 0)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("upper_case", str.upper),
        ("title_case", lambda s: " ".join(w[:1].upper() + w[1:] for w in s.split(" "))),
        ("no_end_mark", lambda s: s.rstrip(".!?")),
    ],
)
def test_each_change_is_made_to_the_source_alone(known, key, change):
    pairs = pairs_of(known, TEXT)
    made = augmented(known, pairs, **{key: 1.0})
    assert sources(known, made) == [change(line) for line in TEXT]
    assert sentences(made) == sentences(pairs)


def test_a_typo_changes_a_letter_or_a_space(known):
    pairs = pairs_of(known, TEXT)
    made = sources(known, augmented(known, pairs, typos=1.0))
    for before, after in zip(TEXT, made, strict=True):
        assert abs(len(before) - len(after)) <= 2
    assert sum(a != b for a, b in zip(TEXT, made, strict=True)) >= 3  # two equal letters may swap
    assert augmentation.make_typos("冬の水 123 4567 ab", random.Random(1)) == "冬の水 123 4567 ab"


def test_what_is_copied_is_on_both_sides(known):
    pairs = pairs_of(known, TEXT * 8)
    noise = augmented(known, pairs, noise=1.0)
    assert sources(known, noise) == known.decode_target(sentences(noise))
    assert len(set(sources(known, noise))) > 20
    tagged = augmented(known, pairs, placeholders=1.0)
    targets = known.decode_target(sentences(tagged))
    for line, source, target in zip(TEXT * 8, sources(known, tagged), targets, strict=True):
        assert source == target
        assert source.startswith(f"{line} ") or source.endswith(f" {line}")


def test_as_many_pairs_change_as_the_shares_say(known):
    pairs = pairs_of(known, LINES[:20] * 100)
    made = augmented(known, pairs, upper_case=0.2, title_case=0.3)
    texts = sources(known, made)
    upper = sum(text.isupper() for text in texts) / len(texts)
    same = sum(a == b for a, b in zip(texts, sources(known, pairs), strict=True)) / len(texts)
    assert upper == pytest.approx(0.2, abs=0.03)
    assert same == pytest.approx(0.5, abs=0.04)


def test_an_epoch_is_a_function_of_its_seed(known, monkeypatch):
    pairs = pairs_of(known, LINES * 5)
    shares = {"upper_case": 0.3, "typos": 0.3, "noise": 0.1, "placeholders": 0.2}
    first = sources(known, augmented(known, pairs, **shares))
    assert sources(known, augmented(known, pairs, seed=2, **shares)) != first
    monkeypatch.setattr(augmentation, "ROWS", 3)  # whatever is changed at a time
    assert sources(known, augmented(known, pairs, **shares)) == first


def test_a_pair_that_would_be_too_long_stays(known):
    pairs = pairs_of(known, TEXT)
    limit = int(pairs.source_lengths.max())
    augment = Augmenter(AugmentConfig(upper_case=1.0, placeholders=1.0), known, limit)
    made = augment(pairs, 1, 0)
    assert made.source_lengths.max() <= limit
    assert made.target_lengths.max() <= limit
    assert augment.max_lengths(pairs) == (limit, limit)


def test_control_pieces_stay_before_the_source_and_masked_text_stays_as_it_is():
    config, languages = VocabularyConfig(size=390), Languages(source="en", target="de")
    known = learn_vocabulary(config, languages, LINES, LINES).naming(["<2de>"])
    (ids,) = known.encode_source([TEXT[0]])
    tag = known.controls["<2de>"]
    rows = [[tag, *ids, END], [MASK, *ids, END]]
    tokens = np.array([i for row in rows for i in row], dtype=np.uint16)
    offsets = np.cumsum([0, *map(len, rows)])
    made = augmented(known, EncodedPairs(tokens, offsets, tokens, offsets), upper_case=1.0)
    first = made.source(0).tolist()
    assert first[0] == tag
    assert known.source.decode([first[1:-1]]) == [TEXT[0].upper()]
    assert made.source(1).tolist() == rows[1]


def test_every_character_is_spelled_in_what_was_not_learned(known):
    pairs = pairs_of(known, ["größe naïve 東京 ☃ word."])
    assert sources(known, augmented(known, pairs, upper_case=1.0)) == ["GRÖSSE NAÏVE 東京 ☃ WORD."]


def test_a_source_of_end_marks_keeps_them():
    draw = random.Random(1)
    assert change_source("...", 0, False, True, draw) == "..."


def test_shares_that_exclude_each_other_are_refused(tmp_path):
    text = "upper_case: 0.6\ntitle_case: 0.5"
    with pytest.raises(ConfigError, match="exclude each other"):
        validate(AugmentConfig, parse(text, "recipe", tmp_path))
