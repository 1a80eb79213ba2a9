"""A section: paths, input files, and that it does not change."""

from pathlib import Path

import pytest
from sound_recipe import RECIPE, write

from mt.config import recipe
from mt.config.plugins import plugin
from mt.config.section import input_files


def test_paths_start_at_the_folder_of_the_file_that_says_them(folder):
    (folder / "deep").mkdir()
    write({"deep/recipe.yaml": RECIPE})
    settled, _ = recipe.load(Path("deep/recipe.yaml"))
    assert settled.data.train[0].source == str(folder / "deep" / "train.en")


def test_the_input_files_of_a_section_are_found():
    config = plugin("sources", "text").Config(kind="text", source="/a.en", target="/a.de")
    assert input_files(config) == {"source": "/a.en", "target": "/a.de"}


def test_a_recipe_cannot_be_changed_once_it_is_loaded(folder):
    settled, _ = recipe.load(Path("recipe.yaml"))
    with pytest.raises(ValueError, match="frozen"):
        settled.training.max_steps = 3
