"""Each epoch has pairs of its own, and the same ones for one seed."""

import pytest
from sampled_vocabularies import LINES, learned, pairs_of, sentences

from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.data.epoch_variation import EpochCorpora, EpochVariation

AUGMENT = "{upper_case: 0.5, typos: 0.5, placeholders: 0.3}"


def varied(folder, augment="{}", sampling="{}"):
    text = f"""
languages: {{source: en, target: de}}
data:
  train: [{{kind: demo}}]
  valid: {{kind: demo, split: valid}}
  augment: {augment}
  max_length: 200
vocabulary: {{size: 390, model: bpe, sampling: {sampling}}}
model: {{kind: transformer}}
training: {{max_steps: 10000}}
"""
    recipe = validate(Recipe, parse(text, "recipe", folder))
    return EpochVariation(recipe, learned("bpe"))


SIDES = "{source: {dropout: 0.2}, target: {dropout: 0.2}}"


@pytest.mark.parametrize(
    "settings", [{"augment": AUGMENT}, {"sampling": SIDES}, {"augment": AUGMENT, "sampling": SIDES}]
)
def test_an_epoch_is_a_function_of_seed_and_number(tmp_path, settings):
    def sources(pairs):
        return [pairs.source(row).tolist() for row in range(len(pairs))]

    pairs = pairs_of(learned("bpe"), LINES)
    made = [EpochCorpora(varied(tmp_path, **settings), pairs, 7) for _ in "ab"]
    whole = [sources(made[0].start_epoch(epoch)) for epoch in range(3)]
    assert whole[0] != whole[1] != whole[2]
    assert sources(made[1].start_epoch(2)) == whole[2]  # as when a run is resumed there
    vary = varied(tmp_path, **settings)
    assert sources(vary(pairs, 7, 1)) == whole[1]
    assert sources(vary(pairs, 8, 1)) != whole[1]


def test_nothing_varies_unless_the_recipe_says_so(tmp_path):
    vary = varied(tmp_path)
    pairs = pairs_of(learned("bpe"), LINES)
    assert not vary
    assert sentences(vary(pairs, 1, 1)) == sentences(pairs)
    assert vary.max_lengths(pairs) == (1, 1)


def test_no_epoch_has_a_longer_pair_than_is_said(tmp_path):
    vary = varied(tmp_path, AUGMENT, SIDES)
    pairs = pairs_of(learned("bpe"), LINES)
    most = vary.max_lengths(pairs)
    for epoch in range(5):
        found = vary(pairs, 1, epoch)
        assert found.source_lengths.max() <= most[0]
        assert found.target_lengths.max() <= most[1]
