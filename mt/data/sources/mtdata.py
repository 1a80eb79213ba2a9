"""A corpus by its identifier in mtdata (Gowda et al. 2021), which runs as a program of its own.

mtdata is never imported: it pins other versions of libraries than mt, reads `mtdata*.py` of the
working directory, and keeps a pickle. `MT_MTDATA` names the Python of an environment that has it.
It is asked once where a corpus is; the answer is kept in the cache, and mt downloads the corpus.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from mt.config.plugins import plugin
from mt.data import archives, download, moses
from mt.data.data_lock import DownloadedConfig
from mt.data.download import Download, Remote
from mt.data.languages import same_language
from mt.data.pairs import Pair, Pairs
from mt.errors import ConfigError, DataError, DownloadError, printable
from mt.runtime import files, model_files

_SECONDS = 600
_READERS = {"tsv": "tsv", "tmx": "tmx"}
"""The kind of source that reads a single file, by its ending."""


class Config(DownloadedConfig):
    """An identifier as `mtdata list` shows it."""

    kind: Literal["mtdata"] = "mtdata"
    id: str = Field(pattern=r"^[\w.]+(-[\w.]+){4}$")
    """Group, name, version and two languages: `Statmt-news_commentary-16-deu-eng`."""


class _Place(NamedTuple):
    """Where a corpus is."""

    url: str
    members: list[str]
    """In an archive the files of the languages in the identifier."""


def fetch(config: Config, update: bool = False) -> Sequence[Download]:
    """Download the file of the corpus; with `update` again."""
    remote = Remote(_resolve(config.id).url, revision=config.id)
    return [download.fetch(remote, Path(config.lock), update)]


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs of the corpus.

    Raises:
        ConfigError: mtdata cannot be run, does not know it, or the languages are others.
        DownloadError: while iterating: not to be had, or not what it was.
        DataError: while iterating: of a form that is not read.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    first, second = config.id.split("-")[3:]
    if same_language(direction.source, first) and same_language(direction.target, second):
        turned = False
    elif same_language(direction.source, second) and same_language(direction.target, first):
        turned = True
    else:
        what = f"it has {first} and {second}, not {direction.source} and {direction.target}"
        raise ConfigError("DATA-LANGUAGES", config.id, what, "see languages in the recipe")
    place = _resolve(config.id)
    (fetched,) = fetch(config)
    if archives.is_archive(fetched.path) and len(place.members) == 2:
        source, target = reversed(place.members) if turned else place.members
        yield from moses.read_sides(fetched.path, direction, config.id, (source, target))
        return
    ending = next((part for part in reversed(place.url.split(".")) if part in _READERS), None)
    if ending is None or archives.is_archive(fetched.path):
        what = f"a file of a form that is not read: {place.url}"
        raise DataError("DATA-FILE", config.id, what, "use mtdata get, and name its files")
    module = plugin("sources", _READERS[ending])
    columns = {"source": 1 + turned, "target": 2 - turned} if ending == "tsv" else {}
    yield from module.read(
        module.Config(file=str(fetched.path), languages=config.languages, **columns)
    )


# -------------------------------------------------------------------------- the program


def _resolve(identifier: str) -> _Place:
    """Return where a corpus is, from the cache or from mtdata."""
    known = files.cache_folder() / "mtdata" / f"{files.digest_json(identifier)[:32]}.json"
    if known.is_file():
        place = model_files.read_json(known)
        return _Place(str(place["url"]), list(place["members"]))
    for line in _list(identifier):
        name, *others = line.split("\t")
        if name == identifier and others:
            members = others[1].split(",") if len(others) > 1 and others[1] else []
            files.make_cache_folder("mtdata")
            files.write_json(known, {"url": others[0], "members": members})
            return _Place(others[0], members)
    what = "mtdata has no corpus with this identifier"
    advice = f"see mtdata list -l {'-'.join(identifier.split('-')[3:])}"
    raise ConfigError("DATA-NAME", f"mtdata:{identifier}", what, advice)


def _list(identifier: str) -> list[str]:
    """Return the lines of `mtdata list` for the languages of an identifier."""
    python = os.environ.get("MT_MTDATA")
    if not python:
        what = "mtdata runs as a program of its own, and MT_MTDATA does not say where it is"
        advice = (
            "python -m venv mtdata && mtdata/bin/pip install mtdata; "
            "then export MT_MTDATA=$PWD/mtdata/bin/python"
        )
        raise ConfigError("MTDATA", identifier, what, advice)
    if download.is_offline():
        what = "mtdata is not asked, because MT_OFFLINE is set"
        raise DownloadError("OFFLINE", identifier, what, "unset MT_OFFLINE")
    home = files.make_cache_folder("mtdata")
    pair = "-".join(identifier.split("-")[3:])
    try:
        done = subprocess.run(
            [python, "-I", "-m", "mtdata", "list", "-l", pair],
            cwd=home, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS,
            env={"PATH": os.defpath, "HOME": str(home), "MTDATA": str(home)},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        what = f"{python} cannot be run ({printable(error, 100)})"
        raise ConfigError(
            "MTDATA", "MT_MTDATA", what, "name the Python of its environment"
        ) from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        what = f"mtdata ended with {done.returncode}: {printable(' '.join(last), 150)}"
        raise ConfigError("MTDATA", "MT_MTDATA", what, f"try: {python} -m mtdata list -l {pair}")
    return done.stdout.decode(errors="replace").splitlines()
