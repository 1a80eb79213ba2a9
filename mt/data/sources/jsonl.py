"""A file of JSON objects, one a line: `{"translation": {"en": ..., "de": ...}}` or columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from mt.config.schema import SourceConfig, refuse_one_key
from mt.config.section import InputFile
from mt.data.languages import find_code
from mt.data.pairs import Pair, Pairs
from mt.data.rows import parse_object
from mt.data.text import join_lines
from mt.errors import DataError, printable
from mt.runtime import text_files


class Config(SourceConfig):
    """One file; plain or compressed with gzip, xz, bzip2 or zstd."""

    kind: Literal["jsonl"] = "jsonl"
    file: InputFile
    """File of JSON lines."""
    source: str | None = None
    """Key of source sentences; left out: the language code, in `translation` or at the top."""
    target: str | None = None
    """Key of target sentences; left out: the language code, in `translation` or at the top."""

    @model_validator(mode="after")
    def _two_keys(self) -> Config:
        refuse_one_key(self.source, self.target)
        return self


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs of the file; a DataError, while iterating, names a wrong line.

    Numbers are read as text, as they are written; blank lines are skipped.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    for number, line in enumerate(text_files.read_lines(Path(config.file)), start=1):
        origin = f"{config.file}:{number}"
        if not line.strip():
            continue
        value = parse_object(line, origin)
        source = _text(value, config.source, direction.source, origin)
        target = _text(value, config.target, direction.target, origin)
        yield Pair(source, target, direction.source, direction.target, origin)


def _text(value: dict[str, Any], key: str | None, language: str, origin: str) -> str | None:
    """Return the text of a key or of the language code; None when it is null."""
    place = value
    if key is None:
        place = value["translation"] if isinstance(value.get("translation"), dict) else value
        key = find_code(language, place)
    if key not in place:
        what = f"there is no key {key!r}; there are: {printable(', '.join(place), 100)}"
        raise DataError("DATA-COLUMN", origin, what, "name the keys with source and target")
    text = place[key]
    if text is not None and not isinstance(text, str):
        what = f"{key} is no text but {printable(json.dumps(text), 50)}"
        raise DataError("DATA-JSON", origin, what, "name the keys with source and target")
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        what = "half of a surrogate pair, which is no character"
        raise DataError("DATA-UTF8", origin, what, "mend or remove the line") from None
    return join_lines(text)
