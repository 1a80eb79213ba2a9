"""YAML to typed values, every problem at once and each with its file and line.

Knows nothing of translation. YAML is read with the scalars of YAML 1.2 (`3e-4` is a number,
`no` is a word), without tags, aliases and duplicate keys, and with a bounded size and depth.
A section is a frozen pydantic model; a section that is a plug-in is found by its `kind`, the
name of a file in a folder of `mt/` or a dotted module name of anyone's.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from mt.errors import ConfigError

MAX_BYTES, MAX_DEPTH, MAX_NODES = 1 << 20, 32, 50_000
Location = tuple[str | int, ...]


class Section(BaseModel):
    """A part of the configuration: frozen, typed, no unknown key."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False,
        use_attribute_docstrings=True, hide_input_in_errors=True,
    )  # fmt: skip


class Variant(Section):
    """The configuration of a plug-in; `kind` names its file."""

    kind: str
    """Which variant: the name of a file in its folder, or a dotted module."""


# ------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Document:
    """What was read: plain values, and for each path to a value where it was said."""

    value: dict[str, Any]
    places: dict[Location, str] = field(default_factory=dict)
    folder: Path = Path()
    """Relative paths in the values start here."""
    name: str = "config"

    def place(self, location: Location) -> str:
        """Where `location`, or the nearest thing around it, was said."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.places:
                return self.places[location[:end]]
        return self.name


def read(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigError: unreadable, too large, not UTF-8, not YAML, or not a mapping.
    """
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
    value = {} if node is None else _Builder(name, places).build(node, (), name)
    if not isinstance(value, dict):
        what = f"the top level must be a mapping of sections, not {_told(value)}"
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
            tag = getattr(event, "tag", None)
            if tag:
                what = f"the tag {tag} is not supported"
                raise ConfigError("CONFIG", line, what, "write a plain value")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        told = [getattr(error, "context", None), getattr(error, "problem", None)]
        what = ", ".join(filter(None, told)) or str(error).splitlines()[0]
        raise ConfigError("CONFIG-YAML", where, what, advice) from None


class _Builder:
    """Turns YAML nodes to values and remembers the line of each."""

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
    """A plain scalar by the core schema of YAML 1.2 (section 10.3.2)."""
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
    """The document with `a.b.c=value` applied; the value is YAML, lists are entered by number.

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
    copy = _replaced(document.value, keys, parsed["value"], where)
    value: Any = document.value
    for key in keys:
        step = int(key) if isinstance(value, list) else key
        location = (*location, step)
        inside = (isinstance(value, dict) and key in value) or isinstance(value, list)
        value = value[step] if inside else None
    places = {k: v for k, v in document.places.items() if k[: len(location)] != location}
    return Document(copy, {**places, location: where}, document.folder, document.name)


def _replaced(value: Any, keys: list[str], new: Any, where: str) -> Any:
    """A copy of `value` in which the entry at `keys` is `new`."""
    if not keys:
        return new
    key = keys[0]
    if isinstance(value, dict) or value is None:
        inner = _replaced((value or {}).get(key), keys[1:], new, where)
        return {**(value or {}), key: inner}
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        inner = _replaced(value[int(key)], keys[1:], new, where)
        return [*value[: int(key)], inner, *value[int(key) + 1 :]]
    what = f"{key}: there is no such entry in {_told(value)}"
    raise ConfigError("CONFIG-SET", where, what, "see `mt config` for what there is")


# ---------------------------------------------------------------------------- validation

S = TypeVar("S", bound=BaseModel)


def validate(schema: type[S], document: Document) -> S:
    """The typed value of a document.

    Raises:
        ConfigError: every problem found, each with its place, key path and what was expected.
    """
    try:
        return schema.model_validate(document.value, context={"folder": document.folder})
    except ValidationError as error:
        problems = [
            (document.place(location), what)
            for location, what in sorted(
                _problems(error, schema, document.value), key=lambda p: _order(document, p[0])
            )
        ]
        (where, what), *others = problems
        advice = "mend the configuration; `mt config --schema` prints all keys"
        raise ConfigError("CONFIG", where, what, advice, others) from None


def _order(document: Document, location: Location) -> tuple[str, int]:
    name, _, line = document.place(location).rpartition(":")
    return name, int(line) if line.isdigit() else 0


def _problems(
    error: ValidationError, schema: type[BaseModel], value: Any, outer: Location = ()
) -> Iterator[tuple[Location, str]]:
    items = error.errors(include_url=False)
    around = {item["loc"][:end] for item in items for end in range(len(item["loc"]))}
    choices: dict[Location, list[str]] = {}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in around:
            continue  # a list is short only because its entries are wrong
        keys = _keys_of(item["loc"], value)
        location = (*outer, *keys)
        context = item.get("ctx") or {}
        if item["type"] == "plugin":
            inner: ValidationError = context["error"]
            yield from _problems(inner, context["schema"], item["input"], location)
            continue
        what = _told_problem(item, schema)
        if len(keys) < len(item["loc"]):  # one of the types that the value could have had
            choices.setdefault(location, []).append(what)
        elif location:
            yield location, f"{_path(location)}: {what}"
        else:  # a check between sections, which names its key first
            yield tuple(what.split(" ")[0].strip(":").split(".")), what
    for location, whats in choices.items():
        either = [what.rpartition(", got ")[0] for what in whats[:-1]] + whats[-1:]
        yield location, f"{_path(location)}: {', or '.join(either)}"


def _path(location: Location) -> str:
    return ".".join(str(key) for key in location)


def _keys_of(location: Location, value: Any) -> Location:
    """The keys of a location, without the names of the types that pydantic tried after them."""
    for end, key in enumerate(location):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list):
            value = value[int(key)]
        else:
            return location[:end]
    return location


def _told_problem(item: Any, schema: type[BaseModel]) -> str:
    """What is wrong with one key, in our words."""
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
    return f"{message[0].lower()}{message[1:]}, got {_told(value)}"


def _keys_at(schema: type[BaseModel], location: Location) -> list[str]:
    """The known keys of the section at `location` below `schema`."""
    current: Any = schema
    for key in location:
        fields = getattr(current, "model_fields", {})
        if key in fields:
            current = _section_of(fields[key].annotation)
    return list(getattr(current, "model_fields", {}))


def _section_of(annotation: Any) -> Any:
    """The section within an annotation such as `Section | None` or `tuple[Section, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_of(inner)
        if found is not None:
            return found
    return None


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    return repr(value) if not isinstance(value, bool) else str(value).lower()


# ------------------------------------------------------------------------------ plug-ins


FOLDERS = {
    "sources": "data/sources",
    "models": "models",
    "objectives": "training/objectives",
    "optimizers": "training/optimizers",
    "search": "decoding/search",
    "engines": "decoding/engines",
    "exporters": "export/exporters",
}
"""Where in `mt/` the plug-ins of each section lie, one file a kind."""


def plugins(section: str) -> list[str]:
    """The kinds of a section: the names of the files in its folder."""
    here = Path(__file__).parents[1] / FOLDERS[section]
    return sorted(p.stem for p in here.glob("*.py") if not p.stem.startswith("_"))


def plugin(section: str, kind: str) -> Any:
    """The module of a plug-in.

    Raises:
        ValueError: there is none of this kind; names those there are, or why it does not import.
    """
    if "." not in kind:
        known = plugins(section)
        if kind not in known:
            near = difflib.get_close_matches(kind, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f" (there are: {', '.join(known)})"
            raise ValueError(f"unknown kind {kind!r}{hint}")
        return importlib.import_module(f"mt.{FOLDERS[section].replace('/', '.')}.{kind}")
    try:
        module = importlib.import_module(kind)
    except Exception as error:
        raise ValueError(f"{kind} cannot be imported: {error}") from None
    if not hasattr(module, "Config"):
        raise ValueError(f"{kind} has no Config and so is no plug-in")
    return module


@dataclass(frozen=True)
class Plugin:
    """Marks a field whose type is the Config of the plug-in that its `kind` names."""

    section: str
    default: str | None = None
    without: tuple[str, ...] = ()
    """Kinds that do not fit here."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda config: config.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        configs = [plugin(self.section, kind).Config for kind in self._kinds()]
        return {"anyOf": [handler(config.__pydantic_core_schema__) for config in configs]}

    def _kinds(self) -> list[str]:
        return [kind for kind in plugins(self.section) if kind not in self.without]

    def _validate(self, value: Any, info: ValidationInfo) -> Variant:
        if isinstance(value, Variant):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"should be a mapping with a kind, got {_told(value)}")
        kind = value.get("kind", self.default)
        if not isinstance(kind, str):
            raise ValueError(f"kind: missing; one of {', '.join(self._kinds())}")
        if kind in self.without:
            raise ValueError(f"kind: {kind} does not fit here; one of {', '.join(self._kinds())}")
        schema = plugin(self.section, kind).Config
        try:
            config: Variant = schema.model_validate({**value, "kind": kind}, context=info.context)
        except ValidationError as error:
            context = {"error": error, "schema": schema}
            raise PydanticCustomError("plugin", "invalid plug-in section", context) from None
        return config


# -------------------------------------------------------------------------------- fields


def _below_the_file(value: Any, info: ValidationInfo) -> Any:
    """A relative path starts at the folder of the file that says it."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"should be a path, got {_told(value)}")
    folder = (info.context or {}).get("folder", Path())
    return os.path.abspath(os.path.join(folder, value))


InputFile = Annotated[str, BeforeValidator(_below_the_file)]
"""The path of a file that is read, relative to the config that names it."""


def input_files(section: BaseModel) -> dict[str, str]:
    """The input files that a section names, by key."""
    found = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        marks = [*info.metadata, *getattr(info.annotation, "__args__", ())]
        if "_below_the_file" not in repr(marks):
            continue
        if isinstance(value, str):
            found[name] = value
        elif isinstance(value, tuple):
            found |= {f"{name}.{number}": path for number, path in enumerate(value)}
    return found


def describe(schema: type[BaseModel], key: str) -> tuple[str, str, str]:
    """The type, default and docstring of a key of a section.

    Raises:
        KeyError: there is no such key.
    """
    info = schema.model_fields[key]
    kind = getattr(info.annotation, "__name__", None) or str(info.annotation)
    kind = str(info.annotation).replace("typing.", "") if "Literal" in kind else kind
    default = (
        "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
    )
    return kind, default, info.description or ""
