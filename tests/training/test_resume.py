"""A resumed run has the recipe and the data that it began with."""

from __future__ import annotations

import pytest

from mt.errors import ConfigError
from mt.training.resume import check_recipe, describe_corpora


def changed(recipe, section, **values):
    part = getattr(recipe, section).model_copy(update=values)
    return recipe.model_copy(update={section: part})


def test_what_cannot_change_the_weights_may_change(built):
    run, _ = built
    recipe = changed(run.recipe, "training", report_every=1, keep_last=9, max_minutes=3.0)
    check_recipe(run.folder, changed(recipe, "runtime", threads=2))


def test_each_other_key_is_refused_with_both_values(built):
    run, _ = built
    recipe = changed(run.recipe, "training", seed=5, clip=2.0)
    with pytest.raises(ConfigError, match=r"training.seed: 1 -> 5") as refused:
        check_recipe(run.folder, recipe)
    assert "training.clip: 1.0 -> 2.0" in str(refused.value)


def test_a_schedule_that_falls_to_zero_keeps_its_end(built):
    run, _ = built
    assert run.recipe.schedule.falls_to_zero
    with pytest.raises(ConfigError, match=r"training\.max_epochs"):
        check_recipe(run.folder, changed(run.recipe, "training", max_epochs=9))


def test_corpora_are_described_by_the_keys_and_values_of_the_recipe(built):
    text = describe_corpora(built[0].recipe)
    assert text.startswith("data.train.0 (kind=demo, size=150), data.valid (")
    assert "split=valid" in text
