"""A recipe printed as YAML says where each value was set; a key is explained."""

from __future__ import annotations

import pytest

from mt.config import recipe, yaml_reader
from mt.config.explain import explain, to_yaml
from mt.errors import ConfigError


@pytest.fixture
def loaded(folder):
    return recipe.load(folder / "recipe.yaml", ["training.seed=7"])


def test_the_printed_recipe_is_the_same_recipe(loaded, folder):
    settled, document = loaded
    text = "\n".join(to_yaml(settled, document))
    assert yaml_reader.parse(text).value == recipe.dump(settled)


def test_each_value_has_the_place_where_it_was_set(loaded):
    lines = {line.split(":")[0].strip(): line for line in to_yaml(*loaded)}
    assert lines["seed"].endswith(("# default", "# --set training.seed=7"))
    assert any("# --set training.seed=7" in line for line in to_yaml(*loaded))
    assert lines["max_steps"].endswith("recipe.yaml:12")
    assert lines["clip"].endswith("# default")


@pytest.mark.parametrize("clean", ["default", "[default, {kind: language}]"])
def test_what_default_stands_for_is_printed_with_its_place(folder, clean):
    settled, document = recipe.load(folder / "recipe.yaml", [f"data.clean={clean}"])
    lines = list(to_yaml(settled, document))
    assert yaml_reader.parse("\n".join(lines)).value == recipe.dump(settled)
    (rule,) = (line for line in lines if "kind: long_words" in line)
    assert rule.endswith(f"# --set data.clean={clean}")


def test_a_key_is_explained_with_type_default_and_value(loaded):
    lines = explain(*loaded, "training.seed")
    assert lines[0] == "training.seed:"
    assert "  default: 1" in lines
    assert "  value: 7 (--set training.seed=7)" in lines
    assert any("Seed of weights" in line for line in lines)


def test_an_unknown_key_is_refused_with_a_close_one(loaded):
    with pytest.raises(ConfigError, match=r"no key sead \(did you mean seed\?\)"):
        explain(*loaded, "training.sead")
