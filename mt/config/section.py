"""Base classes and field types of configuration sections."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo

# Upper bounds of numeric keys. They are far above any use, so that a number beyond one is a slip,
# and low enough that what is computed from it stays within 64 bits, fp32 and memory.
MAX_COUNT = 10**9
"""Of steps, tokens, lines and epochs: products of two fit into 64 bits."""
MAX_LENGTH = 10**6
"""Of a sentence, in pieces: a library of books."""
MAX_POSITIONS = 2**17
"""Positions that a model has a table of: a table of them has some hundred megabytes."""
MAX_WIDTH = 2**20
"""Of a layer of a model: the widest feed-forward layers published have some 200,000 columns."""
MAX_LAYERS = 2000
"""Of a stack: DeepNet has 1,000 layers."""
MAX_HYPOTHESES = 10_000
"""Beams or samples of a sentence: searches have been studied with up to 1,000."""
MAX_FACTOR = 1e6
"""Of weights of losses, temperatures and the like: their products stay within fp32."""
MAX_PROCESSES = 4096
"""Processes of one machine."""


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


def describe_value(value: Any) -> str:
    """Name a wrong value in an error message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    return repr(value) if not isinstance(value, bool) else str(value).lower()


def _resolve_path(value: Any, info: ValidationInfo) -> Any:
    """Resolve a path relative to the folder of its configuration file."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"should be a path, got {describe_value(value)}")
    folder = (info.context or {}).get("folder", Path())
    return os.path.abspath(os.path.join(folder, value))


InputFile = Annotated[str, BeforeValidator(_resolve_path)]
"""The path of a file that is read, relative to the config that names it."""
_RECORD = "a record"
RecordFile = Annotated[str, BeforeValidator(_resolve_path), _RECORD]
"""The path of a file that mt writes beside the config and that decides no result."""


def input_files(section: BaseModel, records: bool = False) -> dict[str, str]:
    """Return the input files of a section, by key; with `records` those that mt writes, too."""
    paths = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        marks = [*info.metadata, *getattr(info.annotation, "__args__", ())]
        if _resolve_path.__name__ not in repr(marks) or (_RECORD in marks and not records):
            continue
        if isinstance(value, str):
            paths[name] = value
        elif isinstance(value, tuple):
            paths |= {f"{name}.{number}": path for number, path in enumerate(value)}
    return paths


def map_input_files(value: Any, change: Callable[[str], str]) -> Any:
    """Return a section, or what contains some, with the path of each input file changed."""
    if isinstance(value, dict):
        return {key: map_input_files(part, change) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map_input_files(part, change) for part in value)
    if not isinstance(value, BaseModel):
        return value
    named = {key.partition(".")[0] for key in input_files(value, records=True)}
    updates = {}
    for key in type(value).model_fields:
        old = getattr(value, key)
        if key not in named:
            new = map_input_files(old, change)
        else:
            new = change(old) if isinstance(old, str) else tuple(map(change, old))
        if new != old:
            updates[key] = new
    return value.model_copy(update=updates) if updates else value


def describe_key(schema: type[BaseModel], key: str) -> tuple[str, str, str]:
    """Return the type, default and docstring of a key of a section."""
    info = schema.model_fields[key]
    kind = getattr(info.annotation, "__name__", None) or str(info.annotation)
    kind = str(info.annotation).replace("typing.", "") if "Literal" in kind else kind
    if info.is_required():
        return kind, "required", info.description or ""
    return kind, repr(info.get_default(call_default_factory=True)), info.description or ""
