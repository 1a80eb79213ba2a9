"""A corpus of OPUS (Tiedemann 2012) by name, in the languages of its direction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from mt.data import catalogue, download, moses
from mt.data.catalogue import LATEST, OpusCorpus
from mt.data.data_lock import DownloadedConfig
from mt.data.download import Download, Remote
from mt.data.pairs import Pair, Pairs


class Config(DownloadedConfig):
    """A name as `mt data list` shows it."""

    kind: Literal["opus"] = "opus"
    name: str
    """Name of the corpus, such as `Tatoeba`."""
    version: str = Field(LATEST, pattern=r"^\w[\w.-]*$")
    """Version, such as `v2021-07-22`; `latest`: the newest that this version of mt knows."""


def fetch(config: Config, update: bool = False) -> Sequence[Download]:
    """Download the archive of the corpus; with `update` again."""
    corpus = _find(config)
    remote = Remote(corpus.url, revision=corpus.version, bytes=corpus.bytes)
    return [download.fetch(remote, Path(config.lock), update)]


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs from the archive.

    Raises:
        ConfigError: there is no such corpus, or not in these languages.
        DownloadError: while iterating: not to be had, or not what it was.
        DataError: while iterating: the archive has other members.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    corpus = _find(config)
    (fetched,) = fetch(config)
    name = f"opus:{corpus.name}/{corpus.version}"
    yield from moses.read_sides(fetched.path, config.direction, name, (None, None))


def _find(config: Config) -> OpusCorpus:
    return catalogue.find_opus(config.name, config.version, config.direction)
