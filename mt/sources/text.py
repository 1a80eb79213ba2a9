"""Two text files, a sentence a line, line n of one the translation of line n of the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from mt import files
from mt.config import InputFile
from mt.contracts import Pair, Pairs, SourceConfig
from mt.errors import DataError


class Config(SourceConfig):
    """Two files of as many lines; plain or compressed with gzip, xz, bzip2 or zstd."""

    kind: Literal["text"] = "text"
    source: InputFile
    """File of source sentences."""
    target: InputFile
    """File of target sentences."""


def read(config: Config) -> Iterable[Pair]:
    """The pairs of the two files.

    Raises:
        DataError: while iterating: unreadable, or of different length; names both counts.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    source, target = files.lines(Path(config.source)), files.lines(Path(config.target))
    for number, (a, b) in enumerate(zip_longest(source, target), start=1):
        if a is None or b is None:
            rest = number + sum(1 for _ in (target if a is None else source))
            raise _different(config, *((number - 1, rest) if a is None else (rest, number - 1)))
        origin = f"{config.source}:{number}"
        yield Pair(a, b, direction.source, direction.target, origin)


def _different(config: Config, source: int, target: int) -> DataError:
    where = f"{config.source} and {config.target}"
    what = f"{source} lines against {target}"
    advice = "line n of one must translate line n of the other; mend the files"
    return DataError("DATA-LINES", where, what, advice)
