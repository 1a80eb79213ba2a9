"""A corpus at any URL: two files, two members of an archive, or one file of another kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mt.config.plugins import check_private_url, plugin
from mt.data import archives, download, moses
from mt.data.data_lock import DownloadedConfig
from mt.data.download import Download, Remote
from mt.data.pairs import Pair, Pairs, pair_lines, single_lines
from mt.errors import redact

Column = Annotated[int, Field(ge=1, le=10**6)]


class Config(DownloadedConfig):
    """URLs of two text files; or `url` alone, of an archive or, with `format`, of another file.

    Files may be compressed with gzip, xz, bzip2 or zstd; an archive is zip or tar.
    """

    kind: Literal["url"] = "url"
    url: str | None = Field(None, min_length=1)
    """URL of an archive, or of a file of another kind; with `{language}` in it the URLs of two text
    files, by the code of each side; left out: `source` and `target` are URLs."""
    source: str | Column | None = None
    """URL of the source sentences; with `url` the member of the archive, else the only one that
    ends in the language; with `format: tsv` or `jsonl` the column."""
    target: str | Column | None = None
    """The same of the target sentences."""
    format: str | None = Field(None, pattern=r"^\w+$")
    """The kind of source that reads the file at `url`: tsv, jsonl, tmx, xliff or po."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    """What the hash of the file at `url` must be; left out: what `data.lock` says."""
    private: bool = False
    """Allow http and addresses of a private network."""

    @model_validator(mode="after")
    def _has_one_form(self) -> Config:
        sides = self.source, self.target
        for text in (self.url, *sides):
            if isinstance(text, str) and redact(text) != text:
                raise ValueError(
                    "a secret in a URL would be written to the run; fetch it with mt data get"
                )
        if self.url is None:
            if self.format is not None or self.sha256 is not None:
                raise ValueError("format and sha256 are of the file at url, which is missing")
            if not any(sides) or not all(isinstance(side, str | None) for side in sides):
                raise ValueError("give url, or the URLs of source and target")
        one_file = any(sides) or self.format is not None or self.sha256 is not None
        if self.url is not None and "{language}" in self.url and one_file:
            raise ValueError(
                "url: {language} names two text files: leave out source, target, format and sha256"
            )
        if self.format is not None:
            fields = plugin("sources", self.format).Config.model_fields
            if "file" not in fields:
                raise ValueError(f"format: {self.format} reads no single file")
            if any(sides) and "source" not in fields:
                raise ValueError(f"source and target: format: {self.format} has no columns")
        elif self.url is not None and not all(isinstance(side, str | None) for side in sides):
            raise ValueError("source and target: name the members of the archive")
        if self.only is not None and self.url is None and getattr(self, self.only) is None:
            raise ValueError(f"only: {self.only}, but {self.only} has no URL")
        return self

    @property
    def side(self) -> Literal["source", "target"] | None:
        """The side that has a URL, if only one has."""
        if self.url is not None or (self.source is not None and self.target is not None):
            return self.only
        return "target" if self.source is None else "source"

    @property
    def text_urls(self) -> tuple[str | None, str | None] | None:
        """URLs of two text files, or of one; None: `url` is an archive or of another kind."""
        if self.url is None:
            return self.source, self.target  # type: ignore[return-value]  # no columns without url
        if "{language}" not in self.url:
            return None
        source, target = self.direction.source, self.direction.target
        return self.url.replace("{language}", source), self.url.replace("{language}", target)


def fetch(config: Config, update: bool = False) -> Sequence[Download]:
    """Download the files of a corpus; with `update` again."""
    if config.private:  # the user has named them as they are written
        for url in (config.url,) if config.url else (config.source, config.target):
            if url is not None:
                check_private_url(str(url), url)
    urls = config.text_urls or (config.url,)
    remotes = [Remote(url, sha256=config.sha256, private=config.private) for url in urls if url]
    return [download.fetch(remote, Path(config.lock), update) for remote in remotes]


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs; nothing is unpacked on disk.

    Raises:
        DownloadError: while iterating: not to be had, not allowed, or hostile.
        DataError: while iterating: a member is missing, or the sides have different lengths.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    paths = [each.path for each in fetch(config)]
    if config.text_urls is not None:
        yield from _text_files(config, paths, [url for url in config.text_urls if url])
    elif config.format is not None:
        yield from _other_format(config, paths[0])
    else:
        members: Any = config.source, config.target
        yield from moses.read_sides(paths[0], config.direction, str(config.url), members)


def _text_files(config: Config, paths: list[Path], urls: list[str]) -> Iterator[Pair]:
    texts = [
        archives.read_lines(partial(archives.open_text, path), url)
        for path, url in zip(paths, urls, strict=True)
    ]
    if len(texts) == 2:
        source, target = texts
        yield from pair_lines(source, target, config.direction, urls[0], " and ".join(urls))
    else:
        side: Any = "source" if config.source is not None else "target"
        yield from single_lines(texts[0], side, config.direction, urls[0])


def _other_format(config: Config, path: Path) -> Iterator[Pair]:
    module = plugin("sources", str(config.format))
    columns = {side: getattr(config, side) for side in ("source", "target")}
    given = {side: column for side, column in columns.items() if column is not None}
    other = module.Config(file=str(path), languages=config.languages, **given)
    for pair in module.read(other):
        yield replace(pair, origin=f"{config.url}:{pair.origin.rpartition(':')[2]}")
