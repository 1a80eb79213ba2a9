"""Two text files, line n of one the translation of line n of the other; or one, monolingual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from mt.config.schema import SourceConfig
from mt.config.section import InputFile
from mt.data.pairs import Pair, Pairs, pair_lines, single_lines
from mt.runtime import text_files


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
    sides = [path and text_files.read_lines(Path(path)) for path in (config.source, config.target)]
    if sides[0] and sides[1]:
        where = f"{config.source} and {config.target}"
        return pair_lines(sides[0], sides[1], config.direction, str(config.source), where)
    path = config.source or config.target
    side = "source" if config.source else "target"
    return single_lines(text_files.read_lines(Path(str(path))), side, config.direction, str(path))
