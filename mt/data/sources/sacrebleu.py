"""A test set of sacreBLEU (Post 2018) by name, with the text that `sacrebleu` itself would give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mt.data import archives, catalogue, download, xml_reader
from mt.data.data_lock import DownloadedConfig
from mt.data.download import Download, Remote
from mt.data.pairs import Pair, Pairs, pair_lines
from mt.errors import DataError


class Config(DownloadedConfig):
    """A name as `mt data list` shows it; of several references the first is taken."""

    kind: Literal["sacrebleu"] = "sacrebleu"
    name: str
    """Name of the test set, such as `wmt17`."""


def fetch(config: Config, update: bool = False) -> Sequence[Download]:
    """Download the files of the test set that are needed for its direction; with `update` again."""
    return list(dict.fromkeys(each for each, _ in _locate(config, update)))


def read(config: Config) -> Iterable[Pair]:
    """Read the source and the first reference.

    Raises:
        ConfigError: there is no such test set, or not in this direction.
        DownloadError: while iterating: not to be had, or not what sacreBLEU's table says.
        DataError: while iterating: the archive has other members.
    """
    return Pairs(partial(_pairs, config))


def _members(config: Config) -> tuple[Any, str, list[str]]:
    """Return the test set, its pair of languages, and its one or two files."""
    dataset, pair = catalogue.find_test_set(config.name, config.direction)
    entry = dataset.langpairs[pair]
    return dataset, pair, [entry["path"]] if isinstance(entry, dict) else list(entry[:2])


def _locate(config: Config, update: bool = False) -> Iterator[tuple[Download, str | None]]:
    """Yield for each file its download, and its name in that if it is an archive."""
    dataset, pair, names = _members(config)
    prefix = f"{dataset.name.replace('/', '_')}."
    hashes = dataset.md5 or [None] * len(dataset.data)
    # Of several archives the one of this direction is looked into first.
    remotes = [Remote(url, md5=md5) for url, md5 in zip(dataset.data, hashes, strict=True)]
    remotes.sort(key=lambda remote: pair not in remote.url)
    fetched: dict[str, Download] = {}

    def fetch_once(remote: Remote) -> Download:
        if remote.url not in fetched:
            fetched[remote.url] = download.fetch(remote, Path(config.lock), update)
        return fetched[remote.url]

    for name in names:
        wanted = name.rpartition(":")[2]  # `column:file` of tables
        for remote in remotes:
            own = prefix + remote.url.rpartition("/")[2]
            if remote.url.endswith((".tgz", ".tar.gz", ".zip")):
                archive = fetch_once(remote)
                if wanted in _plain_names(archive.path):
                    yield archive, wanted
                    break
            elif own == wanted:
                yield fetch_once(remote), None
                break
        else:
            where, what = f"sacrebleu:{config.name}", f"no archive has {wanted}"
            raise DataError("DATA-MEMBER", where, what, "update sacrebleu, whose table names it")


def _plain_names(path: Path) -> set[str]:
    return {name.removeprefix("./") for name in archives.member_names(path)}


def _open(fetched: Download, member: str | None) -> BinaryIO:
    if member is None:
        return archives.open_text(fetched.path)
    return archives.open_member(fetched.path, member)


def _pairs(config: Config) -> Iterator[Pair]:
    dataset, pair, names = _members(config)
    where = f"sacrebleu:{config.name}"
    if len(names) == 1:
        ((fetched, member),) = _locate(config)
        segments = list(_xml_segments(dataset, pair, _open(fetched, member), where))
        sides = [[segment[side] for segment in segments] for side in (0, 1)]
    else:
        sides = [
            [
                _text(dataset, name, number, line)
                for line in archives.read_lines(partial(_open, fetched, member), f"{where}, {name}")
                if not _is_markup(dataset, name, line)
            ]
            for number, (name, (fetched, member)) in enumerate(
                zip(names, _locate(config), strict=True)
            )
        ]
    both = f"{where}, {' and '.join(names)}"
    yield from pair_lines(sides[0], sides[1], config.direction, where, both)


def _is_sgml(dataset: Any, name: str) -> bool:
    from sacrebleu.dataset.fake_sgml import FakeSGMLDataset, WMTAdditionDataset

    if isinstance(dataset, WMTAdditionDataset):
        return name.endswith(".sgm")
    return isinstance(dataset, FakeSGMLDataset)


def _is_markup(dataset: Any, name: str, line: str) -> bool:
    return _is_sgml(dataset, name) and not line.startswith("<seg ")


def _text(dataset: Any, name: str, number: int, line: str) -> str:
    """Return the text of a line of source (0) or reference (1), as sacreBLEU takes it."""
    from sacrebleu.dataset.tsv import TSVDataset

    if isinstance(dataset, TSVDataset):
        column = int(name.partition(":")[0]) if ":" in name else number
        fields = line.split("\t")
        return fields[column] if column < len(fields) else ""
    if _is_sgml(dataset, name):
        return _clean(re.sub(r"<seg.*?>(.*)</seg>.*?", r"\1", line))
    return line.rstrip()


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip())


def _xml_segments(
    dataset: Any, pair: str, stream: BinaryIO, where: str
) -> Iterator[tuple[str, str]]:
    """Yield source and reference of each segment of a file of WMT 2021 or later.

    Left out are documents of test suites, and segments that no translator has translated.
    """
    entry = dataset.langpairs[pair]
    allowed = entry.get("refs") if isinstance(entry, dict) else None
    translator = (allowed or dataset.kwargs.get("refs") or [""])[0]
    with stream:
        root = xml_reader.parse(stream, where)
    for document in root.iterfind(".//doc"):
        if "testsuite" in document.attrib:
            continue
        references = {
            each.get("translator") or "": {
                s.get("id"): s.text or "" for s in each.iterfind(".//seg")
            }
            for each in document.iterfind(".//ref")
        }
        source = {int(s.get("id")): s for s in document.iterfind(".//src//seg")}
        for number in sorted(source):
            key = source[number].get("id")
            if any(each.get(key) for each in references.values()):
                reference = references.get(translator, {}).get(key, "")
                yield _clean(source[number].text or ""), _clean(reference)
