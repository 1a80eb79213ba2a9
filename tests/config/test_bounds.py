"""Every numeric key has both bounds, and no number ends as a fault of mt."""

from __future__ import annotations

import contextlib
import functools
import random
import types
import typing
from pathlib import Path

import pytest
import typer
from command_recipe import RECIPE
from pydantic import BaseModel, ValidationError

from mt.cli import main
from mt.config import plugins, recipe, yaml_reader
from mt.config.plugins import FOLDERS, plugin
from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.errors import ConfigError

ROOT = Path(__file__).parents[2]
BEYOND = (10**30, -(10**30), 1e300, -1e300, 2**63)
"""Numbers that no key takes."""
EXTREME = (
    "9" * 400, "-" + "9" * 400, "1e308", "-1e308", "1e999", str(2**63), str(2**31), "-1", "0",
    "0.0", "1e-320", ".nan", "nan", ".inf", "inf", "-.inf", "9" * 5000, "1_000", "0x10",
)  # fmt: skip


def parts(annotation):
    """The types that an annotation is made of."""
    yield annotation
    for inner in typing.get_args(annotation):
        yield from parts(inner)


def is_numeric(field):
    return not {int, float}.isdisjoint(parts(field.annotation))


def sections(schema: type[BaseModel]) -> set[type[BaseModel]]:
    """A section, and those inside it."""
    found = {schema}
    for field in schema.model_fields.values():
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in found:
                found |= sections(part)
    return found


def all_sections() -> list[type[BaseModel]]:
    configs = [
        plugin(section, kind).Config
        for section in FOLDERS if section != "engines" for kind in plugins.plugins(section)
    ]  # fmt: skip
    found = set().union(*(sections(schema) for schema in (Recipe, *configs)))
    return sorted(found, key=lambda each: f"{each.__module__}.{each.__qualname__}")


def without_bound(schema: type[BaseModel]) -> list[str]:
    """The numeric fields of a section that take a number which no key takes."""
    missing = []
    for name, field in schema.model_fields.items():
        if not is_numeric(field):
            continue
        length = 2 if "tuple" in str(field.annotation) else 1
        for number in BEYOND:
            value = [number] * length if length > 1 else number
            try:
                schema.model_validate({name: value})
                refused = False
            except ValidationError as error:
                refused = any(item["loc"][:1] == (name,) for item in error.errors())
            if not refused:
                missing.append(f"{schema.__module__}.{name} takes {number}")
    return missing


@pytest.mark.parametrize(
    "schema", all_sections(), ids=lambda each: f"{each.__module__}.{each.__name__}"
)
def test_every_number_has_both_bounds(schema):
    assert without_bound(schema) == []


def test_a_number_without_a_bound_is_noticed():
    """The law above can fail."""
    module = types.SimpleNamespace(__name__="x")

    class Loose(BaseModel):
        __module__ = module.__name__
        steps: int = 1
        name: str = ""

    assert "x.steps takes 1" + "0" * 30 in without_bound(Loose)


# ------------------------------------------------------------------------- the command line

CHOICES = [
    "",
    *(f"model.kind={kind}" for kind in plugins.plugins("models")),
    *(f"objective.kind={kind}" for kind in plugins.plugins("objectives")),
    *(f"optimizer.kind={kind}" for kind in plugins.plugins("optimizers")),
    *(f"search.kind={kind}" for kind in plugins.plugins("search")),
]  # fmt: skip


def numeric_keys(schema, prefix):
    """The dotted names of the numeric keys below a section."""
    for name, field in schema.model_fields.items():
        if is_numeric(field):
            yield f"{prefix}{name}"
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from numeric_keys(part, f"{prefix}{name}.")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def keys_of(choice):
    """The numeric keys of a section of a kind; of all sections without kinds for no choice."""
    if not choice:
        return list(numeric_keys(Recipe, ""))
    section, _, kind = choice.partition(".kind=")
    folder = {"model": "models", "objective": "objectives", "optimizer": "optimizers"}
    return list(numeric_keys(plugin(folder.get(section, section), kind).Config, f"{section}."))


@pytest.mark.parametrize("choice", CHOICES)
def test_no_number_of_any_key_is_a_fault_of_mt(choice, config):
    """A recipe is read, or refused by a ConfigError."""
    document = yaml_reader.read(config)
    document = yaml_reader.override(document, choice) if choice else document
    for key in keys_of(choice):
        for value in EXTREME:
            with contextlib.suppress(ConfigError):
                changed = yaml_reader.override(document, f"{key}={value}")
                recipe.dump(validate(Recipe, changed))


def test_the_command_line_refuses_them_in_the_same_way(config, monkeypatch, capsys):
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    draw = random.Random(1)
    for choice in CHOICES:
        for key in draw.sample(keys_of(choice), min(2, len(keys_of(choice)))):
            sets = ["--set", choice] if choice else []
            value = draw.choice(EXTREME)
            code = main.run(["config", str(config), *sets, "--set", f"{key}={value}"])
            assert code in (0, 2), (key, value, capsys.readouterr().err)


INTEGERS = {
    "init": ["--minutes"],
    "translate": ["--n-best", "--seed", "--processes", "--threads"],
    "score": ["--processes", "--threads"],
    "eval": ["--show", "--processes", "--threads"],
    "attention": ["--layer", "--head", "--n-best"],
    "average": ["--last"],
    "shortlist": ["--pieces", "--frequent", "--pairs"],
    "prune": ["--finetune-steps", "--pairs"],
    "distill": ["--beams", "--processes", "--threads"],
    "backtranslate": ["--seed", "--processes", "--threads"],
}


def test_every_integer_option_is_known_here():
    group = typer.main.get_command(main.app)
    found = {
        name: [
            option.opts[-1] for option in command.params
            if not {int, float}.isdisjoint(parts(option.type_descriptor.annotation))
        ]
        for name, command in group.commands.items()
    }  # fmt: skip
    assert {name: opts for name, opts in found.items() if opts} == INTEGERS


@pytest.mark.parametrize("command", INTEGERS)
def test_integer_options_have_bounds(command, monkeypatch, capsys):
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    for option in INTEGERS[command]:
        for value in ("9" * 400, "-" + "9" * 400, str(2**63), "-1", "1e3", "nan"):
            code = main.run([command, "nowhere", option, value])
            err = capsys.readouterr().err
            assert (code, f"'{option}'" in err) == (2, True), (option, value, err)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_recipes_are_within_them(path):
    recipe.load(path)
