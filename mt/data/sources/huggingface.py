"""A data set of the Hugging Face hub, or local parquet, JSON or CSV files, through `datasets`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

from pydantic import Field, model_validator

from mt.config.schema import SourceConfig, refuse_one_key
from mt.config.section import InputFile
from mt.data.download import is_offline
from mt.data.languages import base_code, find_code
from mt.data.pairs import Chunk, Pair, Pairs
from mt.data.rows import read_csv, read_json
from mt.data.text import join_lines
from mt.errors import DataError, DownloadError, MtError
from mt.runtime import files, text_files

_BATCH, _STREAM_BATCH = 1000, 250
_BUILDERS = {"parquet": "parquet", "json": "json", "jsonl": "json", "csv": "csv"}


class Config(SourceConfig):
    """A data set by its id on the hub, or files of this machine."""

    kind: Literal["huggingface"] = "huggingface"
    dataset: str | None = Field(None, pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$")
    """Id of a data set on the hub, such as `bentrevett/multi30k`."""
    files: tuple[InputFile, ...] = Field((), strict=False)
    """Local files instead, all parquet, JSON lines or CSV by their names."""
    separator: str | None = Field(None, min_length=1, max_length=1)
    """Between the fields of CSV; left out: of `,`, `;`, tab and `|` the one in the first line."""
    config: str | None = None
    """Configuration of the data set; left out: its only one, or `de-en` or `en-de`."""
    revision: str | None = None
    """Commit, branch or tag of the data set; only a commit is sure to stay what it is."""
    split: str = "train"
    """Split of the data set."""
    source: str | None = None
    """Column of source sentences; left out: the language code, in `translation` or by itself."""
    target: str | None = None
    """Column of target sentences; left out: the language code, in `translation` or by itself."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Config:
        if (self.dataset is None) == (not self.files):
            raise ValueError("give either dataset, an id on the hub, or files")
        kinds = {_builder(path) for path in self.files}
        if None in kinds or len(kinds) > 1:
            raise ValueError("files must all end in .parquet, .json, .jsonl or .csv, all the same")
        refuse_one_key(self.source, self.target)
        return self


def _builder(path: str) -> str | None:
    """Return the name of the `datasets` builder that reads a file, compressed or not."""
    ends = [end for end in Path(path).name.lower().split(".")[1:] if end in _BUILDERS]
    return _BUILDERS[ends[-1]] if ends else None


def read(config: Config) -> Iterable[Pair]:
    """Read the pairs of the data set.

    Raises:
        DataError: while iterating: unreadable, no such configuration, split or column.
        DownloadError: while iterating: the hub cannot be reached or has no such data set.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    rows = _local(config) if config.files else _hub(config)
    name = _name(config)
    number = 0
    with _translate_errors(config, name):
        for batch in rows.iter(batch_size=_BATCH):
            source = _column(batch, config.source, direction.source, name)
            target = _column(batch, config.target, direction.target, name)
            for a, b in zip(source, target, strict=True):
                number += 1
                yield Pair(a, b, direction.source, direction.target, f"{name}:{number}")


def stream(
    config: Config, order: int, rank: int, world_size: int, position: dict[str, Any] | None
) -> Iterator[Chunk]:
    """Stream the pairs of one process after a position, whose shard is read again.

    A process has its own shards where their number is a multiple of `world_size`, else every
    `world_size`-th pair. `order`, at least 1, decides the order of shards.

    Raises:
        DataError, DownloadError: as `read`; names the shard where it is known.
    """
    _obey_offline()
    from datasets.distributed import split_dataset_by_node

    direction, name = config.direction, _name(config)
    rows = _local(config) if config.files else _hub(config, streaming=True)
    with _translate_errors(config, name):
        rows = split_dataset_by_node(rows, rank, world_size)
        rows.set_epoch(order)  # shuffles the shards, and keeps no buffer that a resume would lose
        if position is not None:
            rows.load_state_dict(position)
        batches = rows.iter(batch_size=_STREAM_BATCH)
    while True:
        with _translate_errors(config, name):  # not around `yield`: streams run in parallel
            batch = next(batches, None)
            if batch is None:
                return
            source = _column(batch, config.source, direction.source, name)
            target = _column(batch, config.target, direction.target, name)
            position = rows.state_dict()
        yield Chunk(source, target, position)


def _name(config: Config) -> str:
    return f"{config.dataset}/{config.split}" if config.dataset else config.files[0]


def _local(config: Config) -> Any:
    """Stream local files: nothing is copied, and metadata are in our cache."""
    import datasets

    for path in config.files:
        text_files.open_bytes(Path(path)).close()  # raises when the path is wrong
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # no message to the hub for a local read
    if _builder(config.files[0]) != "parquet":  # its own types; in others `datasets` guesses them
        return datasets.IterableDataset.from_generator(
            _read_rows, gen_kwargs={"paths": list(config.files), "config": config}
        )
    with _translate_errors(config, config.files[0]):
        return datasets.load_dataset(
            "parquet", data_files=list(config.files), split="train", streaming=True,
            cache_dir=str(files.make_cache_folder("datasets", or_temporary=True)),
        )  # fmt: skip


def _read_rows(paths: list[str], config: Config) -> Iterator[dict[str, Any]]:
    """Yield the rows of CSV or JSON files, their text as it is written."""
    direction = config.direction
    columns = config.source or direction.source, config.target or direction.target
    for path in map(Path, paths):
        if _builder(str(path)) == "csv":
            yield from read_csv(path, columns, config.separator)
        else:
            yield from read_json(path)


def _hub(config: Config, streaming: bool = False) -> Any:
    """Load a data set of the hub into the user's cache, or stream it; run no code of it."""
    _obey_offline()
    import datasets

    direction = config.direction
    codes = base_code(direction.source), base_code(direction.target)
    pair = "-".join(codes), "-".join(reversed(codes))
    with _translate_errors(config, str(config.dataset)):
        for name in [config.config] if config.config else [None, *pair]:
            try:
                return datasets.load_dataset(
                    config.dataset, name, revision=config.revision, split=config.split,
                    streaming=streaming,
                )  # fmt: skip
            except ValueError as error:
                # With a guessed name the error lists the names that exist.
                if "config" not in str(error).lower() or name == pair[1] or config.config:
                    raise
        raise AssertionError("unreachable: the last name returns or raises")


def _obey_offline() -> None:
    """Forbid the network to `datasets`, which reads this when it is imported, by MT_OFFLINE."""
    if is_offline():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _column(batch: dict[str, list[Any]], key: str | None, language: str, where: str) -> list[Any]:
    """Return the texts of one side of a batch of columns."""
    advice = "name the columns with source and target"
    place: list[dict[str, Any]] = []
    if key is None:
        nested = batch.get("translation")
        place = nested if nested and isinstance(nested[0], dict) else []
        key = find_code(language, place[0] if place else batch)
    if place:
        if key not in place[0]:
            what = f"translation has no {key!r}; it has: {', '.join(place[0])}"
            raise DataError("DATA-COLUMN", where, what, "see languages in the recipe")
        texts = [row[key] for row in place]
    elif key in batch:
        texts = batch[key]
    else:
        what = f"there is no column {key!r}; there are: {', '.join(batch)}"
        raise DataError("DATA-COLUMN", where, what, advice)
    for text in texts:
        if text is not None and not isinstance(text, str):
            what = f"column {key!r} holds no text but {type(text).__name__}"
            raise DataError("DATA-COLUMN", where, what, advice)
    return [text and join_lines(text) for text in texts]


# -------------------------------------------------------------------------------- errors

_REACH = (
    "see the network, proxy (HTTPS_PROXY), HF_ENDPOINT and, for a private one, HF_TOKEN; with "
    "HF_HUB_OFFLINE=1 only what was fetched before is used"
)


@contextlib.contextmanager
def _translate_errors(config: Config, where: str) -> Iterator[None]:
    """Raise errors of `datasets` as errors of mt."""
    logger = logging.getLogger("datasets")  # it logs failures with tracebacks, then raises them
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except MtError:
        raise
    except Exception as error:
        if files.is_disk_full(error):
            with files.os_errors_as_mt_errors(where):
                raise
        raise _as_mt_error(error, config, _shard(config, error) or where) from None
    finally:
        logger.setLevel(level)


def _shard(config: Config, error: Exception) -> str | None:
    """Return the shard that could not be read, if it is known."""
    message = " ".join(str(cause) for cause in _chain(error))
    for path in config.files:
        if path in message:
            return path
    pattern = r"hf://datasets/\S+?(?=[\s'\"])|(?<=/resolve/)\S+?(?=[\s'\"?])"
    match = re.search(pattern, f"{message} ")
    shard = match[0].rstrip(".,") if match else ""
    if _builder(shard):
        return shard
    # Errors seldom name the file: it is the variable `file` of the builder of `datasets`.
    frames = [frame for cause in _chain(error) for frame, _ in walk_tb(cause.__traceback__)]
    names = [str(frame.f_locals.get("file")) for frame in frames]
    return next((name for name in names if _builder(name)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _as_mt_error(error: Exception, config: Config, where: str) -> MtError:
    causes = list(_chain(error))
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    what = _first_line(error)
    if "scripts are no longer supported" in what:
        advice = "try `revision: refs/convert/parquet`, or another data set"
        return DataError("HUB-SCRIPT", where, "a data set that is a program is not run", advice)
    if isinstance(error, ValueError) and "split" in what.lower():
        available = re.findall(r"\[.*\]", what)
        what = f"there is no split {config.split!r}; there are: {' '.join(available).strip('[]')}"
        return DataError("DATA-SPLIT", where, what, "name one of them with split")
    if isinstance(error, ValueError) and "config" in what.lower():
        available = re.findall(r"\[.*?\]", " ".join(str(error).splitlines()))
        missing = f"no configuration {config.config!r}" if config.config else "a choice to make"
        what = f"there is {missing}; there are: {' '.join(available).strip('[]')}"
        return DataError("DATA-CONFIG", where, what, "name one of them with config")
    if config.files:
        advice = "see whether the file is what its name says"
        return DataError("DATA-FILE", where, f"cannot be read ({_first_line(causes[-1])})", advice)
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}:
        return DownloadError("HUB-NONE", where, what, f"see dataset and revision; {_REACH}")
    if names & {"ChecksumVerificationError", "SplitsVerificationError"}:
        advice = "delete it from the cache of the hub and run the command again"
        return DownloadError("HUB-DAMAGED", where, what, advice)
    return DownloadError("HUB", where, f"cannot be fetched ({what})", _REACH)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error, without what looks like a token."""
    first = (str(error).splitlines() or [""])[0] or type(error).__name__
    return re.sub(r"\bhf_\w+", "hf_***", first)
