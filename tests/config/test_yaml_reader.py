"""The reader of YAML and `--set`: scalars, order, and refusals."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config import recipe, yaml_reader
from mt.errors import ConfigError

# ------------------------------------------------------------------------- what is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1_000", "1_000"), ("no", "no"), ("yes", "yes"),
        ("on", "on"), ("0o17", "0o17"),
        ("012", 12), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("~", None), ("", None),
        ("true", True), ("'true'", "true"), (".5", 0.5), ("1.", 1.0), ("=", "="), ("<<", "<<"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = yaml_reader.parse(f"key: {text}").value["key"]
    assert (read, type(read)) == (value, type(value))


def test_set_wins_over_the_file_and_the_file_over_defaults(folder):
    file, _ = recipe.load(Path("recipe.yaml"))
    replaced, _ = recipe.load(Path("recipe.yaml"), ["model.d_model=32", "model.d_model=64"])
    assert file.model.d_model == 16
    assert replaced.model.d_model == 64
    assert file.model.dropout == replaced.model.dropout == 0.1


def test_set_reaches_into_lists_and_sections_that_are_not_there(folder):
    settled, _ = recipe.load(
        Path("recipe.yaml"), ["data.train.0.source=other.en", "evaluation.lowercase=true"]
    )
    assert settled.data.train[0].source == str(folder / "other.en")
    assert settled.evaluation.lowercase is True


YAMLISH = st.text(st.sampled_from("ab1.-:,[]{}#&*!|>'\"%@`?~ \n\t\u2028é"), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), YAMLISH))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ConfigError):
        yaml_reader.parse(text)


@settings(max_examples=200, deadline=None)
@given(YAMLISH)
def test_any_assignment_is_applied_or_refused(text):
    with contextlib.suppress(ConfigError):
        yaml_reader.override(yaml_reader.parse("a: {b: [1, {c: 2}]}"), f"a.{text}")
