"""Translation memories: TMX files (LISA 1.4b) of translators' tools, read as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mt.config.schema import SourceConfig
from mt.config.section import InputFile
from mt.data.languages import match_languages
from mt.data.pairs import Pair, Pairs
from mt.data.text import join_lines
from mt.data.xml_reader import XML_LANGUAGE, local_name, no_such_pair, read_elements, text_of

_CODES = ("bpt", "ept", "ph", "it", "ut", "sub")
"""Inline tags with codes of the original format; `hi` has text."""
_MANY_LANGUAGES = 200


class Config(SourceConfig):
    """One TMX file; plain or compressed with gzip, xz, bzip2 or zstd."""

    kind: Literal["tmx"] = "tmx"
    file: InputFile
    """The translation memory; units without both languages of the direction are skipped."""


def read(config: Config) -> Iterable[Pair]:
    """Read the units of the file that have both languages, in constant memory.

    Raises:
        DataError: while iterating: not well-formed, or no unit has both; lists the languages.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction, count = config.direction, 0
    found: set[str] = set()
    for unit in read_elements(Path(config.file), ["tu"]):
        segments = _segments(unit)
        if len(found) < _MANY_LANGUAGES:
            found.update(segments)
        texts = []
        for code in (direction.source, direction.target):
            best = match_languages(code, segments)
            texts += [join_lines(text_of(segments[best[0]], _CODES, config.file))] if best else []
        if len(texts) == 2:
            count += 1
            origin = f"{config.file}:{count}"
            yield Pair(texts[0], texts[1], direction.source, direction.target, origin)
    if not count:
        raise no_such_pair(Path(config.file), direction, found)


def _segments(unit: Any) -> dict[str, Any]:
    """Return the first `seg` of each language of a unit."""
    segments: dict[str, Any] = {}
    for variant in unit:
        if local_name(variant) == "tuv":
            language = variant.get(XML_LANGUAGE) or variant.get("lang") or ""
            for part in variant:
                if local_name(part) == "seg":
                    segments.setdefault(language, part)
    return segments
