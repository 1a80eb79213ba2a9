"""`mt config`: a recipe as YAML, and the documentation of one key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

from mt.config.recipe import Recipe, dump
from mt.config.section import Section, describe_key
from mt.config.yaml_reader import Document, Location, scalar
from mt.errors import ConfigError


def to_yaml(recipe: Recipe, document: Document) -> Iterator[str]:
    """Yield a recipe as lines of YAML, each value with the place in `document` that set it."""
    for location, indent, text, is_value in _yaml_lines(dump(recipe), ()):
        line = "  " * indent + text
        yield f"{line:<47} # {_origin(document, location)}" if is_value else line


def _yaml_lines(value: Any, location: Location) -> Iterator[tuple[Location, int, str, bool]]:
    """Yield (location, indentation, text, whether it has a value) of each line of a block."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        inside = (*location, key)
        label = f"{_yaml_scalar(key)}:" if isinstance(value, dict) else "-"
        nested = isinstance(entry, dict) or (
            isinstance(entry, list) and any(isinstance(item, dict) for item in entry)
        )
        if not entry or not nested:
            yield inside, len(location), f"{label} {_yaml_scalar(entry)}", True
            continue
        below = _yaml_lines(entry, inside)
        if isinstance(value, dict):
            yield inside, len(location), label, False
        else:  # the first key follows the dash
            first, _, text, is_value = next(below)
            yield first, len(location), f"- {text}", is_value
        yield from below


def _yaml_scalar(value: Any) -> str:
    """Format a scalar or a list of scalars as YAML that reads back as the same value."""
    if isinstance(value, list):
        return f"[{', '.join(_yaml_scalar(item) for item in value)}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[^\W\d][\w./<>-]*|/[\w./-]*", value) and scalar(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _origin(document: Document, location: Location) -> str:
    """Return the place where a value was set, or `default`."""
    value: Any = document.value
    for depth, key in enumerate(location):
        if value == "default" or (isinstance(value, list) and "default" in value):  # for several
            return document.place(location[:depth])
        if not (key in value if isinstance(value, dict) else isinstance(value, list)):
            return "the recipe's languages" if key == "languages" and depth else "default"
        value = value[key]
    return document.place(location)


def explain(recipe: Recipe, document: Document, key: str) -> list[str]:
    """Describe a key, or list those of a section; a ConfigError when there is no such key."""
    *_, (section, _, _), (value, name, location) = _key_path(recipe, key)
    lines = [f"{key}:"]
    if isinstance(section, Section):
        kind, default, meaning = describe_key(type(section), name)
        lines += [f"  {line}" for line in meaning.splitlines()]
    if _has_keys(value):
        return [*lines, *(f"  {key}.{name}" for name in _names(value))]
    if isinstance(section, Section):
        lines += [f"  type: {kind}", f"  default: {default}"]
    shown = list(value) if isinstance(value, tuple) else value
    return [*lines, f"  value: {_yaml_scalar(shown)} ({_origin(document, location)})"]


def _key_path(recipe: Recipe, key: str) -> Iterator[tuple[Any, str, Location]]:
    """Yield (value, name, location) for each part of a key, from the recipe down."""
    value: Any = recipe
    location: Location = ()
    yield value, "", location
    for name in key.split("."):
        part = int(name) if isinstance(value, tuple) and name.isdigit() else name
        names = _names(value)
        if part not in names:
            near = difflib.get_close_matches(name, [str(n) for n in names], n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            advice = "`mt config CONFIG` prints every key"
            what = f"there is no key {name}{hint}"
            raise ConfigError("CONFIG-KEY", f"--explain {key}", what, advice)
        value = getattr(value, name) if isinstance(value, Section) else value[part]
        location = (*location, part)
        yield value, name, location


def _has_keys(value: Any) -> bool:
    """Whether a value of a recipe has keys below it."""
    if isinstance(value, tuple):
        return any(isinstance(entry, Section) for entry in value)
    return isinstance(value, Section) or (isinstance(value, dict) and bool(value))


def _names(value: Any) -> list[Any]:
    """List the keys below a value of a recipe."""
    if isinstance(value, Section):
        return list(type(value).model_fields)
    if isinstance(value, tuple):
        return list(range(len(value)))
    return list(value) if isinstance(value, dict) else []
