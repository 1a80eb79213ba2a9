"""XLIFF files, version 1.2 (OASIS 2008) and 2 (2014, 2018), read as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mt.config.schema import Languages, SourceConfig
from mt.config.section import InputFile
from mt.data.languages import same_language
from mt.data.pairs import Pair, Pairs
from mt.data.text import join_lines
from mt.data.xml_reader import local_name, no_such_pair, read_elements, text_of

_CODES = ("bpt", "ept", "ph", "it", "sub", "x", "bx", "ex", "sc", "ec", "sm", "em")
"""Inline tags without text; `g`, `pc` and `mrk` have text."""


class Config(SourceConfig):
    """One XLIFF file; plain or compressed with gzip, xz, bzip2 or zstd."""

    kind: Literal["xliff"] = "xliff"
    file: InputFile
    """The file; units without a target are skipped. Its direction may be the opposite."""


def read(config: Config) -> Iterable[Pair]:
    """Read the translated units of the file, in constant memory.

    Raises:
        DataError: while iterating: not well-formed, or in other languages; lists these.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction, count = config.direction, 0
    found: set[str] = set()
    order: tuple[str, str] | None = None
    fits = False
    for element in read_elements(Path(config.file), ["trans-unit", "segment"], ["file", "xliff"]):
        if local_name(element) in ("file", "xliff"):
            languages = _languages(element)
            if languages is not None:
                found.update(each for each in languages if each)
                order = _order(direction, *languages)
                fits = fits or order is not None
        elif order is not None:
            sides = _sides(element, config.file)
            if "target" in sides and "source" in sides:
                count += 1
                texts = [sides[side] for side in order]
                origin = f"{config.file}:{count}"
                yield Pair(texts[0], texts[1], direction.source, direction.target, origin)
    if not fits:
        raise no_such_pair(Path(config.file), direction, found)


def _languages(element: Any) -> tuple[str, str] | None:
    """Return the languages that `file` (1.2) or `xliff` (2) names; None if it names none."""
    source = element.get("source-language") or element.get("srcLang")
    target = element.get("target-language") or element.get("trgLang")
    return (source, target or "") if source else None


def _order(direction: Languages, source: str, target: str) -> tuple[str, str] | None:
    """Return which elements are source and target of a direction; None: of other languages."""
    if same_language(direction.source, source) and (
        not target or same_language(direction.target, target)
    ):
        return "source", "target"
    if same_language(direction.target, source) and same_language(direction.source, target):
        return "target", "source"
    return None


def _sides(unit: Any, name: str) -> dict[str, str]:
    """Return the texts of the children `source` and `target`, not of suggestions deeper down."""
    return {
        local_name(part): join_lines(text_of(part, _CODES, name))
        for part in unit
        if local_name(part) in ("source", "target")
    }
