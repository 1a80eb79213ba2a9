"""A file of tab-separated columns, a pair a line; no quoting: a quotation mark is text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mt.config.schema import SourceConfig, refuse_one_key
from mt.config.section import InputFile
from mt.data.pairs import Pair, Pairs
from mt.errors import DataError
from mt.runtime import text_files

Column = Annotated[int, Field(ge=1, le=10**6)] | str
_ADVICE = "each line holds the same number of fields, parted by tabs; mend the file"


class Config(SourceConfig):
    """One file; plain or compressed with gzip, xz, bzip2 or zstd."""

    kind: Literal["tsv"] = "tsv"
    file: InputFile
    """File of tab-separated lines."""
    source: Column = 1
    """Column of source sentences: its number from 1, or its name in the first line."""
    target: Column = 2
    """Column of target sentences: its number from 1, or its name in the first line."""

    @model_validator(mode="after")
    def _two_columns(self) -> Config:
        refuse_one_key(self.source, self.target)
        return self


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs of the file; a DataError, while iterating, names a wrong line."""
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    columns = (config.source, config.target)
    width = source = target = 0
    for number, line in enumerate(text_files.read_lines(Path(config.file)), start=1):
        fields = line.split("\t")
        if number == 1:
            width = len(fields)
            source, target = (_position(config, column, fields) for column in columns)
            if any(isinstance(column, str) for column in columns):
                continue
        origin = f"{config.file}:{number}"
        if len(fields) != width:
            what = f"{_count_fields(len(fields))}, but {width} in the first line"
            raise DataError("DATA-FIELDS", origin, what, _ADVICE)
        yield Pair(fields[source], fields[target], direction.source, direction.target, origin)


def _position(config: Config, column: Column, fields: list[str]) -> int:
    """Return the index of the field of a column."""
    where = f"{config.file}:1"
    if isinstance(column, int):
        if column > len(fields):
            what = f"{_count_fields(len(fields))}; column {column} is asked for"
            raise DataError("DATA-FIELDS", where, what, _ADVICE)
        return column - 1
    if column not in fields:
        what = f"there is no column {column!r}; there are: {', '.join(fields)}"
        raise DataError("DATA-COLUMN", where, what, "name columns as the first line does")
    return fields.index(column)


def _count_fields(count: int) -> str:
    return f"{count} field" + "s" * (count != 1)
