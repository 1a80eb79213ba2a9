"""An archive with the two sides of a corpus, as OPUS has them in the format of Moses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from mt.config.schema import SourceConfig
from mt.config.section import InputFile
from mt.data.moses import read_sides
from mt.data.pairs import Pair, Pairs


class Config(SourceConfig):
    """One zip or tar archive, the latter plain or compressed; it is not unpacked."""

    kind: Literal["moses"] = "moses"
    file: InputFile
    """The archive."""
    source: str | None = None
    """Member with source sentences; left out: the only one whose name ends in the language."""
    target: str | None = None
    """Member with target sentences; left out: the only one whose name ends in the language."""


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs of the two members.

    Raises:
        DataError: while iterating: a member is missing, or they have different lengths.
        DownloadError: while iterating: the archive is hostile or damaged.
    """
    members = config.source, config.target
    return Pairs(partial(read_sides, Path(config.file), config.direction, config.file, members))
