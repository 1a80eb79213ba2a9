"""Pydantic errors as `file:line: key: problem`, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mt.config.section import Section, describe_value
from mt.config.yaml_reader import Document, Location
from mt.errors import ConfigError

S = TypeVar("S", bound=BaseModel)


def validate(schema: type[S], document: Document) -> S:
    """Return the typed value of a document.

    Raises:
        ConfigError: every problem, each with its place, key path and what was expected.
    """
    context = {"folder": document.folder, "name": document.name}
    try:
        return schema.model_validate(document.value, context=context)
    except ValidationError as error:
        found = _list_problems(error, schema, document.value)
        problems = [(document.place(location), what) for location, what in found]
        (where, what), *others = sorted(problems, key=_sort_key)
        advice = "mend the configuration; `mt config --schema` prints all keys"
        raise ConfigError("CONFIG", where, what, advice, others) from None


class _Whole(Section):
    """A section around another.

    It looks for no docstrings: pydantic searches all frames for them, up to 0.1 s in a deep stack.
    """

    model_config = ConfigDict(use_attribute_docstrings=False)


def validate_section(
    name: str, schema: Any, values: dict[str, Any], places: dict[Location, str], option: str
) -> Any:
    """Return the typed value of one section of a recipe.

    `schema` is a class or a field annotation. Errors name the place of `(name, key)` in `places`,
    else `option`.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    whole = create_model("Whole", __base__=_Whole, **{name: (schema, ...)})  # type: ignore[call-overload]
    return getattr(validate(whole, Document({name: values}, places, name=option)), name)


def _sort_key(problem: tuple[str, str]) -> tuple[str, int]:
    name, _, line = problem[0].rpartition(":")
    return name, int(line) if line.isdigit() else 0


def _list_problems(
    error: ValidationError, schema: type[BaseModel], value: Any, outer: Location = ()
) -> Iterator[tuple[Location, str]]:
    items = error.errors(include_url=False)
    around = {item["loc"][:end] for item in items for end in range(len(item["loc"]))}
    choices: dict[Location, list[str]] = {}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in around:
            continue  # a list is short only because its entries are wrong
        keys = _known_keys(item["loc"], value)
        location = (*outer, *keys)
        context = item.get("ctx") or {}
        if item["type"] == "plugin":
            inner: ValidationError = context["error"]
            yield from _list_problems(inner, context["schema"], item["input"], location)
            continue
        what = _format_problem(item, schema)
        if len(keys) < len(item["loc"]):  # one of the types that the value could have had
            choices.setdefault(location, []).append(what)
        elif location:
            yield location, f"{_key_text(location)}: {what}"
        else:  # a check between sections, which names its key first
            yield tuple(what.split(" ")[0].strip(":").split(".")), what
    for location, whats in choices.items():
        either = [what.rpartition(", got ")[0] for what in whats[:-1]] + whats[-1:]
        yield location, f"{_key_text(location)}: {', or '.join(either)}"


def _key_text(location: Location) -> str:
    return ".".join(str(key) for key in location)


def _known_keys(location: Location, value: Any) -> Location:
    """Return the keys of a location, without the types that pydantic tried after them."""
    for end, key in enumerate(location):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int):
            value = value[key] if key < len(value) else None  # one is missing
        else:
            return location[:end]
    return location


def _format_problem(item: Any, schema: type[BaseModel]) -> str:
    """Describe what is wrong with one key."""
    kind, message, value = item["type"], item["msg"], item["input"]
    if kind == "extra_forbidden":
        names = _keys_at(schema, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1, cutoff=0.5)
        return "unknown key" + (f" (did you mean {near[0]}?)" if near else "")
    if kind == "missing":
        return "missing; it must be given"
    if kind == "value_error":
        return str(message).removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "Input should be a mapping of keys"
    if kind in ("tuple_type", "list_type"):
        message = "Input should be a list"
    if kind == "too_short":
        return f"should have at least {item['ctx']['min_length']} entry"
    message = str(message).removeprefix("Input ")
    return f"{message[0].lower()}{message[1:]}, got {describe_value(value)}"


def _keys_at(schema: type[BaseModel], location: Location) -> list[str]:
    """List the keys of the section at `location` below `schema`."""
    current: Any = schema
    for key in location:
        fields = getattr(current, "model_fields", {})
        if key in fields:
            current = _section_of(fields[key].annotation)
    return list(getattr(current, "model_fields", {}))


def _section_of(annotation: Any) -> Any:
    """Return the section within an annotation such as `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        section = _section_of(inner)
        if section is not None:
            return section
    return None
