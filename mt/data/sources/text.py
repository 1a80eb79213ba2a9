"""Two text files, line n of one the translation of line n of the other; or one, monolingual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from mt.config.schema import SourceConfig
from mt.config.section import InputFile
from mt.data.pairs import Pair, Pairs
from mt.errors import DataError
from mt.runtime import files


class Config(SourceConfig):
    """Two files of as many lines; plain or compressed with gzip, xz, bzip2 or zstd.

    One file alone is a monolingual corpus, in the language of its side.
    """

    kind: Literal["text"] = "text"
    source: InputFile | None = None
    """File of source sentences."""
    target: InputFile | None = None
    """File of target sentences."""

    @model_validator(mode="after")
    def _has_text(self) -> Config:
        if self.source is None and self.target is None:
            raise ValueError("source and target: one of the two files must be given")
        if self.only is not None and getattr(self, self.only) is None:
            raise ValueError(f"only: {self.only}, but {self.only} names no file")
        return self

    @property
    def side(self) -> Literal["source", "target"] | None:
        """The side that has a file, if only one has."""
        if self.source is None:
            return "target"
        return self.only if self.target is not None else "source"


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs of the two files, or the lines of one.

    Raises:
        DataError: while iterating: unreadable, or of different length; names both counts.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    if config.source is None or config.target is None:
        yield from _lines(config)
        return
    source, target = files.read_lines(Path(config.source)), files.read_lines(Path(config.target))
    for number, (a, b) in enumerate(zip_longest(source, target), start=1):
        if a is None or b is None:
            rest = number + sum(1 for _ in (target if a is None else source))
            raise _different(config, *((number - 1, rest) if a is None else (rest, number - 1)))
        origin = f"{config.source}:{number}"
        yield Pair(a, b, direction.source, direction.target, origin)


def _lines(config: Config) -> Iterator[Pair]:
    direction, path = config.direction, config.source or config.target
    assert path is not None, "Config verifies that there is a file"
    for number, line in enumerate(files.read_lines(Path(path)), start=1):
        source, target = (line, None) if config.source else (None, line)
        yield Pair(source, target, direction.source, direction.target, f"{path}:{number}")


def _different(config: Config, source: int, target: int) -> DataError:
    where = f"{config.source} and {config.target}"
    what = f"{source} lines against {target}"
    advice = "line n of one must translate line n of the other; mend the files"
    return DataError("DATA-LINES", where, what, advice)
