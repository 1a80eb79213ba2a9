"""Plug-ins: from `kind` to the module that implements it."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from mt.config.section import Variant, describe_value

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
    """List the kinds of a section: the names of the files in its folder."""
    folder = Path(__file__).parents[1] / FOLDERS[section]
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def plugin(section: str, kind: str) -> Any:
    """Import the module of a plug-in.

    Raises:
        ValueError: there is none of this kind; lists the kinds, or why it does not import.
    """
    if "." not in kind:
        kinds = plugins(section)
        if kind not in kinds:
            near = difflib.get_close_matches(kind, kinds, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f" (there are: {', '.join(kinds)})"
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
        serializer = core_schema.plain_serializer_function_ser_schema(
            lambda config: config.model_dump(mode="json")
        )
        return core_schema.with_info_plain_validator_function(
            self._validate, serialization=serializer
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
            raise ValueError(f"should be a mapping with a kind, got {describe_value(value)}")
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
