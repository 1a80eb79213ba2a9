"""Plug-ins: from `kind` to the module that implements it.

A dotted kind is a module of the user. It is imported only if the user has named it: in a recipe or
an option of the command line, or by trusting the models that are opened (`--trust`). The recipe of
a run or bundle, which may come from a stranger, imports nothing. Nor does it start a program.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from mt.config.section import Variant, describe_value
from mt.errors import ModelError

FOLDERS = {
    "sources": "data/sources",
    "filters": "data/filters",
    "models": "models",
    "objectives": "training/objectives",
    "optimizers": "training/optimizers",
    "search": "decoding/search",
    "engines": "decoding/engines",
    "exporters": "export/exporters",
    "metrics": "evaluation/metrics",
}
"""Where in `mt/` the plug-ins of each section lie, one file a kind."""

FOR_TRAINING = ("sources", "filters", "objectives", "optimizers", "metrics")
"""Sections that a model is opened without: their dotted kinds need not be imported for that."""


# --------------------------------------------------------------------------------- trust

_named: set[str] = set()
"""The dotted kinds, private URLs and programs that the user has named in this process."""
_refused: dict[str, str] = {}
"""Where a dotted kind stands that the user has not named."""
_trusting = False
_URLS = ("url", "source", "target")
"""Keys of a source that may name a URL."""


def trust_kinds(kinds: Iterable[str]) -> None:
    """Allow the import of modules that the user has named."""
    _named.update(kinds)


def named_kinds() -> frozenset[str]:
    """Return the modules that may be imported, for a process that works for this one."""
    return frozenset(_named)


def dotted_kinds(value: Any) -> Iterator[str]:
    """Yield each dotted `kind` in the plain values of a recipe, each URL called private, and each
    program of a metric."""
    entries = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list)):
        for each in entries:
            yield from dotted_kinds(each)
    kind = value.get("kind") if isinstance(value, dict) else None
    if isinstance(kind, str) and "." in kind:
        yield kind
    if isinstance(value, dict) and value.get("private") is True:
        yield from (url for url in map(value.get, _URLS) if isinstance(url, str))
    if isinstance(value, dict) and kind == "command" and isinstance(value.get("run"), list):
        yield _program(value["run"])


def _program(words: Iterable[object]) -> str:
    """Return the entry of a program and its arguments among what the user has named."""
    return json.dumps([str(word) for word in words])


@contextlib.contextmanager
def trust_models(trust: bool = True) -> Iterator[None]:
    """Let the models that are opened inside name modules to import, if `trust` is true."""
    global _trusting
    before, _trusting = _trusting, _trusting or trust
    try:
        yield
    finally:
        _trusting = before


def trust_recipe(value: Any) -> None:
    """Allow the import of the modules that the recipe of a model names, inside `trust_models`."""
    if _trusting:
        trust_kinds(dotted_kinds(value))


def models_are_trusted() -> bool:
    """Whether the recipes of models that are opened now may name modules to import."""
    return _trusting


def check_private_url(url: str, where: object) -> None:
    """Raise a ModelError for a URL of a private network that the user has not named."""
    if url not in _named:
        what = "its recipe names a URL that may be of your private network"
        advice = "if that is as it should be, add --trust (from Python: trust=True)"
        raise ModelError("MODEL-TRUST", where, what, advice)


def check_program(words: Iterable[str], where: object) -> None:
    """Raise a ModelError for a program that the user has not named."""
    if _program(words) not in _named:
        shown = " ".join(words)
        what = f"its recipe names a program to start: {shown}"
        advice = "look at what it does, then add --trust (from Python: trust=True)"
        raise ModelError("MODEL-TRUST", where, what, advice)


def _untrusted(kind: str, where: object) -> ModelError:
    advice = "look at that module and at what it does, then add --trust (from Python: trust=True)"
    return ModelError("MODEL-TRUST", where, f"its recipe names the module {kind}", advice)


# ------------------------------------------------------------------------------- plug-ins


def plugins(section: str) -> list[str]:
    """List the kinds of a section: the names of the files in its folder."""
    folder = Path(__file__).parents[1] / FOLDERS[section]
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def plugin(section: str, kind: str) -> Any:
    """Import the module of a plug-in.

    Raises:
        ValueError: there is none of this kind; lists the kinds, or why it does not import.
        ModelError: it is a module that the user has not named.
    """
    if "." not in kind:
        kinds = plugins(section)
        if kind not in kinds:
            near = difflib.get_close_matches(kind, kinds, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f" (there are: {', '.join(kinds)})"
            raise ValueError(f"unknown kind {kind!r}{hint}")
        return importlib.import_module(f"mt.{FOLDERS[section].replace('/', '.')}.{kind}")
    if kind not in _named:
        raise _untrusted(kind, _refused.get(kind, f"{section}: {kind}"))
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
        serializer = core_schema.plain_serializer_function_ser_schema(
            lambda config: config.model_dump(mode="json")
        )

        def validate(value: Any, info: ValidationInfo) -> Variant:
            return self._validate(value, info, source)

        return core_schema.with_info_plain_validator_function(validate, serialization=serializer)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        configs = [plugin(self.section, kind).Config for kind in self._kinds()]
        return {"anyOf": [handler(config.__pydantic_core_schema__) for config in configs]}

    def _kinds(self) -> list[str]:
        return [kind for kind in plugins(self.section) if kind not in self.without]

    def _validate(self, value: Any, info: ValidationInfo, base: type[Variant]) -> Variant:
        if isinstance(value, Variant):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"should be a mapping with a kind, got {describe_value(value)}")
        kind = value.get("kind", self.default)
        if not isinstance(kind, str):
            raise ValueError(f"kind: missing; one of {', '.join(self._kinds())}")
        if kind in self.without:
            raise ValueError(f"kind: {kind} does not fit here; one of {', '.join(self._kinds())}")
        if "." in kind and kind not in _named:
            schema = self._stand_in(kind, (info.context or {}).get("name", "the recipe"), base)
        else:
            schema = plugin(self.section, kind).Config
        try:
            config: Variant = schema.model_validate({**value, "kind": kind}, context=info.context)
        except ValidationError as error:
            context = {"error": error, "schema": schema}
            raise PydanticCustomError("plugin", "invalid plug-in section", context) from None
        return config

    def _stand_in(self, kind: str, where: object, base: type[Variant]) -> type[Variant]:
        """Return a class for a section whose module the user has not named.

        Raises:
            ModelError: the section is needed to open a model.
        """
        if self.section not in FOR_TRAINING:
            raise _untrusted(kind, where)
        _refused[kind] = str(where)
        return _unimported(base)


@functools.cache
def _unimported(base: Any) -> type[Variant]:
    """Return a class for a section whose values nobody has checked; it is kept as it is."""

    class Unimported(base):  # type: ignore[misc]
        """A section of a model that its module has not checked."""

        model_config = ConfigDict(extra="allow")

        denoises: ClassVar[bool] = True
        """Nobody knows; the recipe was checked when it was trained."""

    return Unimported
