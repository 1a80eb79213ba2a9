"""Write corpora of the web as files of this machine, and say how a recipe names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from mt.config.plugins import plugin
from mt.config.schema import SourceConfig
from mt.data import archives, catalogue, download
from mt.data.catalogue import LATEST, OPUS, SACREBLEU
from mt.data.data_lock import FILE_NAME
from mt.data.download import Remote
from mt.data.pairs import read_pairs
from mt.errors import ConfigError, printable
from mt.runtime import files, output

MTDATA = "mtdata"
_BY_ENDING = {
    ".tmx": "tmx", ".xlf": "xliff", ".xliff": "xliff", ".po": "po", ".mo": "po", ".tsv": "tsv",
    ".jsonl": "jsonl",
}  # fmt: skip
_ADD_PAIR = "add --pair de-en"
_ADVICE = "write opus:NAME, sacrebleu:NAME, mtdata:ID or a URL; mt data list shows names"


def get_corpus(
    name: str, pair: str | None, folder: Path, update: bool, force: bool, private: bool
) -> Iterator[str]:
    """Fetch a corpus into a folder, with a `data.lock`; yield the lines that a recipe needs.

    Args:
        name: `opus:NAME`, `opus:NAME/VERSION`, `sacrebleu:NAME`, `mtdata:ID` or a URL.
        pair: the languages, source first; of a test set all that it has, if left out.
        folder: where the files are written; created if missing.
        update: fetch again, and replace what `data.lock` says.
        force: replace files that exist.
        private: allow http and private addresses for a URL.

    Raises:
        ConfigError: no such corpus, or a file exists.
        DownloadError: it cannot be had, or is not what it was.
        DataError: it is not what it should be.
    """
    if "://" in name:
        yield from _get_file(Remote(name, private=private), folder, update, force)
        return
    values = source_section(name)
    kind = values.pop("kind")
    several = kind == SACREBLEU and pair is None
    if several and update:  # it would fetch the same archives for each pair
        raise ConfigError("USAGE", name, "with --update, in which languages?", _ADD_PAIR)
    for each in _pairs_of(values["name"]) if several else [pair]:
        yield from _get_pairs(kind, values, each, folder, update, force)


def source_section(name: str) -> dict[str, str]:
    """Return the section of a recipe for `opus:NAME/VERSION`, `sacrebleu:NAME` or `mtdata:ID`.

    Raises:
        ConfigError: it is no such name.
    """
    kind, _, rest = name.partition(":")
    if kind == OPUS:
        corpus, _, version = rest.partition("/")
        return {"kind": kind, "name": corpus, "version": version or LATEST}
    if kind in (SACREBLEU, MTDATA):
        return {"kind": kind, "name" if kind == SACREBLEU else "id": rest}
    raise ConfigError("DATA-NAME", name, "it does not say where it is from", _ADVICE)


def file_section(path: Path) -> dict[str, str]:
    """Return the section of a recipe for a file, whose kind is the end of its name."""
    if archives.is_archive(path):
        return {"kind": "moses", "file": str(path)}
    endings = [ending for ending in path.suffixes if ending in _BY_ENDING]
    if endings:
        return {"kind": _BY_ENDING[endings[-1]], "file": str(path)}
    return {"kind": "text", "source": str(path)}


def _pairs_of(name: str) -> list[str]:
    sets = catalogue.sacrebleu_sets()
    # Of an unknown name the search for one of its pairs says which are near.
    return list(sets[name].langpairs) if name in sets else ["en-de"]


def _get_pairs(
    kind: str, values: dict[str, str], pair: str | None, folder: Path, update: bool, force: bool
) -> Iterator[str]:
    name = next(iter(values.values()))
    if pair is None:
        raise ConfigError("USAGE", f"{kind}:{name}", "in which languages?", _ADD_PAIR)
    direction = catalogue.parse_pair(pair)
    module = plugin("sources", kind)
    try:
        config = module.Config(languages=direction, lock=str(folder / FILE_NAME), **values)
    except ValidationError:
        what = f"not the form of {' and '.join(values)} of {kind}"
        raise ConfigError("DATA-NAME", f"{kind}:{name}", what, _ADVICE) from None
    stem = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    names = [f"{stem}.{pair}.{code}" for code in (direction.source, direction.target)]
    paths = [folder / name for name in names]
    _refuse_existing(paths, update or force)
    files.make_folder(folder)
    if update:
        module.fetch(config, update=True)
    _write_sides(config, paths)
    yield _yaml("text", source=paths[0], target=paths[1])
    yield f"# the same without these files:  {_yaml(kind, **values)}"


def _write_sides(config: SourceConfig, paths: list[Path]) -> None:
    """Write the sides of a corpus to two files, which appear together when they are whole."""
    with ExitStack() as stack:
        hidden = [stack.enter_context(files.staged(path)) for path in paths]
        with files.open_new(hidden[0]) as source, files.open_new(hidden[1]) as target:
            for pair in read_pairs(config):
                source.write(f"{pair.source}\n".encode())
                target.write(f"{pair.target}\n".encode())


def _get_file(remote: Remote, folder: Path, update: bool, force: bool) -> Iterator[str]:
    path = folder / file_name(remote.url)
    _refuse_existing([path], update or force)
    files.make_folder(folder)
    fetched = download.fetch(remote, folder / FILE_NAME, update)
    with (
        files.staged(path) as hidden,
        open(fetched.path, "rb") as stream,
        files.open_new(hidden) as out,
    ):
        while block := stream.read(1 << 20):
            out.write(block)
    section = file_section(path)
    yield _yaml(**section)
    if section["kind"] == "moses":
        names = archives.member_names(path)
        yield f"# {path} has: {printable(', '.join(names), 1000)}"


def _yaml(kind: str, **values: object) -> str:
    """Return the line of a recipe that names a source."""
    texts = {key: str(value) for key, value in values.items()}
    quoted = {
        key: text if re.fullmatch(r"[A-Za-z./][\w./-]*", text) else json.dumps(text)
        for key, text in texts.items()
    }
    named = "".join(f", {key}: {text}" for key, text in quoted.items())
    return f"- {{kind: {kind}{named}}}"


def file_name(url: str) -> str:
    """Return a safe name for the file of a URL: letters, digits, dots, hyphens of its last part."""
    last = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".")[:100] or "download"


def _refuse_existing(paths: list[Path], replace: bool) -> None:
    for path in paths:
        if not replace:
            output.refuse_existing(path, "replace it with --force, or choose another folder")
