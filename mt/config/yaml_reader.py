"""YAML to plain values, each with its file and line.

Scalars are those of YAML 1.2 (`3e-4` is a number, `no` is a word). Tags, aliases and duplicate keys
are refused, and size and depth are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mt.config.section import describe_value
from mt.errors import ConfigError

MAX_BYTES, MAX_DEPTH, MAX_NODES = 1 << 20, 32, 50_000
Location = tuple[str | int, ...]


# ------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Document:
    """Plain values, and the file and line of each."""

    value: dict[str, Any]
    places: dict[Location, str] = field(default_factory=dict)
    folder: Path = Path()
    """Relative paths in the values start here."""
    name: str = "config"

    def place(self, location: Location) -> str:
        """Return the file and line of `location`, or of the nearest value around it."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.places:
                return self.places[location[:end]]
        return self.name


def read(path: Path) -> Document:
    """Read a YAML file; a ConfigError when it is unreadable, too large or not a mapping."""
    advice = "give the path of a YAML recipe, such as configs/demo.yaml"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError("CONFIG", path, "larger than 1 MiB", advice)
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("CONFIG-FILE", path, "no such file", advice) from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte {error.start})"
        raise ConfigError("CONFIG", path, what, advice) from None
    except OSError as error:
        raise ConfigError("CONFIG-FILE", path, error.strerror or str(error), advice) from None
    return parse(text, name=str(path), folder=path.parent)


def parse(text: str, name: str = "config", folder: Path = Path()) -> Document:
    """Parse YAML text into a document whose places are `name:line`."""
    places: dict[Location, str] = {}
    node = _compose(text, name)
    value = {} if node is None else _NodeReader(name, places).build(node, (), name)
    if not isinstance(value, dict):
        what = f"the top level must be a mapping of sections, not {describe_value(value)}"
        raise ConfigError("CONFIG", f"{name}:1", what, "begin with, say, `languages: {...}`")
    return Document(value, places, folder, name)


def _compose(text: str, name: str) -> yaml.Node | None:
    advice = "mend the YAML there; spaces indent, `key: value` pairs, no tabs"
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            line = f"{name}:{event.start_mark.line + 1}"  # type: ignore[union-attr]
            if depth > MAX_DEPTH or count > MAX_NODES:
                raise ConfigError("CONFIG", line, "nested too deep or too large", advice)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                what = "anchors and aliases are not supported"
                raise ConfigError("CONFIG", line, what, "write the value out")
            if any("\ud800" <= c <= "\udfff" for c in getattr(event, "value", "")):
                what = "half a surrogate pair, which is no character"
                raise ConfigError("CONFIG", line, what, "write the character itself")
            tag = getattr(event, "tag", None)
            if tag:
                what = f"the tag {tag} is not supported"
                raise ConfigError("CONFIG", line, what, "write a plain value")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        parts = [getattr(error, "context", None), getattr(error, "problem", None)]
        what = ", ".join(filter(None, parts)) or str(error).splitlines()[0]
        raise ConfigError("CONFIG-YAML", where, what, advice) from None


class _NodeReader:
    """Converts YAML nodes to values and records the line of each."""

    def __init__(self, name: str, places: dict[Location, str]) -> None:
        self.name, self.places = name, places

    def build(self, node: yaml.Node, location: Location, where: str) -> Any:
        line = f"{self.name}:{node.start_mark.line + 1}"
        self.places.setdefault(location, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(n, (*location, i), line) for i, n in enumerate(node.value)]
        return scalar(node.value) if getattr(node, "style", None) is None else node.value

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in node.value:
            line = f"{self.name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError("CONFIG", line, "a key must be a word", "write `key: value`")
            if key.value in result:
                first = self.places[(*location, key.value)]
                what = f"{key.value}: given twice (first at {first})"
                raise ConfigError("CONFIG", line, what, "keep one of the two")
            self.places[(*location, key.value)] = line
            result[key.value] = self.build(value, (*location, key.value), line)
        return result


_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def scalar(text: str) -> str | int | float | bool | None:
    """Parse a plain scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text) and len(text) < 30:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def override(document: Document, assignment: str) -> Document:
    """Apply `a.b.c=value` to a document; the value is YAML, entries of lists have numbers.

    Raises:
        ConfigError: not an assignment, or a path through something that is no section.
    """
    where = f"--set {assignment}"
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        what = "not of the form section.key=value"
        raise ConfigError("CONFIG-SET", where, what, "for instance --set training.max_steps=100")
    parsed = parse(f"value: {text}" if text else "value:", where).value
    if set(parsed) != {"value"}:
        raise ConfigError("CONFIG-SET", where, "more than one value", "quote the value")
    location: Location = ()
    copy = _with_value(document.value, keys, parsed["value"], where)
    value: Any = document.value
    for key in keys:
        part = int(key) if isinstance(value, list) else key
        location = (*location, part)
        inside = (isinstance(value, dict) and key in value) or isinstance(value, list)
        value = value[part] if inside else None
    places = {k: v for k, v in document.places.items() if k[: len(location)] != location}
    return Document(copy, {**places, location: where}, document.folder, document.name)


def _with_value(value: Any, keys: list[str], new: Any, where: str) -> Any:
    """Return a copy of `value` in which the entry at `keys` is `new`."""
    if not keys:
        return new
    key = keys[0]
    if isinstance(value, dict) or value is None:
        inner = _with_value((value or {}).get(key), keys[1:], new, where)
        return {**(value or {}), key: inner}
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        inner = _with_value(value[int(key)], keys[1:], new, where)
        return [*value[: int(key)], inner, *value[int(key) + 1 :]]
    what = f"{key}: there is no such entry in {describe_value(value)}"
    raise ConfigError("CONFIG-SET", where, what, "see `mt config` for what there is")
