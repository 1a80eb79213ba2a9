"""Sources to vocabulary to encoded corpus, once: kept in a cache under the hash of what went in.

Reading and encoding are done by `datasets` in chunks of about a thousand pairs; a chunk comes
back as one row of bytes, which is appended to flat files. Memory does not grow with the corpus.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from mt import files, vocabulary
from mt.config import Section, input_files, plugin
from mt.contracts import END, Pair, SourceConfig
from mt.corpus import SIDES, Corpus, Writer, token_type
from mt.errors import DataError, MachineError, ModelError, MtError, Stopped
from mt.recipe import Recipe
from mt.vocabulary import Vocabulary, fold

FORMAT = 1
"""Part of the hash: another number and every cache is built again."""
REASONS = ("empty", "nul", "overlap", "too_long")
"""Why a pair is dropped; one that could go for several goes for the first."""
_CHUNK_PAIRS, _CHUNK_CHARACTERS = 1000, 1 << 20
_FEW_PAIRS = 5_000
_ROWS_IN_MEMORY = 8  # rows that `datasets` collects before it writes, each a chunk

Held = dict[str, set[str]]
"""Folded source to folded targets of the pairs that training must not see."""


@dataclass(frozen=True)
class Prepared:
    """What training needs of the data."""

    vocabulary: Vocabulary
    train: Corpus
    valid: Corpus
    valid_pairs: list[Pair]
    """The raw pairs of `valid`, in the same order."""
    report: dict[str, Any]
    """What was read, kept and dropped, as in `report.json`."""
    folder: Path


def read_pairs(config: SourceConfig) -> Iterable[Pair]:
    """The raw pairs of a source; can be iterated again."""
    pairs: Iterable[Pair] = plugin("sources", config.kind).read(config)
    return pairs


def _to_screen(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare(recipe: Recipe, tell: Callable[[str], None] = _to_screen) -> Prepared:
    """The vocabulary and the encoded corpora of a recipe, from the cache when they are there.

    May be called by several processes at once; one builds, the others wait.

    Raises:
        DataError: the data are missing, damaged or empty, or changed while they were read.
        ConfigError, ModelError: the vocabulary cannot be learned or is none.
        DownloadError: a hub data set could not be fetched.
        Stopped: a signal asked to stop; nothing half-made is left.
    """
    sources = _sources(recipe)
    folder = files.cache_folder() / "corpora" / _key(recipe, sources)
    with files.lock(_lock_of(folder), wait=True), _stoppable():
        _sweep(folder)
        if folder.exists():
            try:
                return _open(folder, tell)
            except ModelError as error:
                (where, what), *_ = error.problems
                tell(f"warning: {where}: {what}; it is built again")
                files.discard(folder)
        with files.new_folder(folder) as hidden:
            report = _Build(recipe, sources, hidden, tell).run()
        for line in _table(report):
            tell(line)
        return _open(folder, lambda _: None)


# ----------------------------------------------------------------------------- the cache


@dataclass(frozen=True)
class _Source:
    """A corpus of the recipe and what its files are."""

    name: str
    config: SourceConfig
    files: dict[str, dict[str, str]]
    """For each key that names a file its path and sha256."""

    @property
    def where(self) -> str:
        paths = [file["path"] for file in self.files.values()]
        return f"data.{self.name} ({', '.join(paths) or self.config.kind})"


def _sources(recipe: Recipe) -> list[_Source]:
    data = recipe.data
    named = {f"train.{i}": source for i, source in enumerate(data.train)}
    named["valid"] = data.valid
    if data.drop_overlap:
        named |= {f"test.{name}": source for name, source in data.test.items()}
    return [_Source(name, config, _inputs(config)) for name, config in named.items()]


def _inputs(section: Section) -> dict[str, dict[str, str]]:
    found = {}
    for key, path in input_files(section).items():
        file = Path(path) / "vocabulary.json" if Path(path).is_dir() else Path(path)
        with files.open_bytes(file):  # says what is wrong with the path
            pass
        found[key] = {"path": path, "sha256": files.sha256(file)}
    return found


def _key(recipe: Recipe, sources: Sequence[_Source]) -> str:
    """The hash of what decides the result: files by content, all else by value."""

    def told(section: Section, inputs: dict[str, dict[str, str]]) -> dict[str, Any]:
        values = section.model_dump(mode="json", exclude={key.split(".")[0] for key in inputs})
        return values | {key: file["sha256"] for key, file in inputs.items()}

    everything = [
        FORMAT, vocabulary.FORMAT, recipe.languages.model_dump(),
        recipe.data.max_length, recipe.data.drop_overlap,
        told(recipe.vocabulary, _inputs(recipe.vocabulary)),
        [[s.name, told(s.config, s.files), _code_of(s.config.kind)] for s in sources],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def _code_of(kind: str) -> list[str]:
    """The hashes of a source's own files: what it reads may change with them."""
    module = Path(plugin("sources", kind).__file__)
    return [files.sha256(path) for path in sorted(module.parent.glob(f"{module.stem}.*"))]


def _lock_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.lock"


def _sweep(folder: Path) -> None:
    """Delete what killed processes left, also of other corpora that nobody is building."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.parent.glob(pattern):
            owner = folder.parent / path.name.split("-")[1]
            with contextlib.ExitStack() as stack, contextlib.suppress(MachineError):
                if owner != folder:
                    stack.enter_context(files.lock(_lock_of(owner)))
                files.discard(path)


def _open(folder: Path, tell: Callable[[str], None]) -> Prepared:
    """What a finished cache folder holds; ModelError when it is damaged."""
    where = folder / "report.json"
    try:
        report = files.read_json(where)
        pairs = [Pair(**json.loads(line)) for line in files.lines(folder / "valid.pairs.jsonl")]
    except (OSError, ValueError, TypeError, DataError) as error:
        what = f"damaged ({error})"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again") from None
    known = Vocabulary.load(folder)
    train, valid = Corpus.open(folder, "train"), Corpus.open(folder, "valid")
    if {train.header["vocabulary"], valid.header["vocabulary"]} != {known.digest}:
        what = "the vocabulary is not the one that encoded the corpus"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")
    if len(pairs) != len(valid):
        what = f"{len(pairs)} validation pairs, {len(valid)} of them encoded"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")
    tell(f"{len(train):,} pairs, {known.size:,} pieces, from the cache ({folder})")
    return Prepared(known, train, valid, pairs, report, folder)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turns SIGINT and SIGTERM to an exception, so that everything is cleaned up."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Stopped(number, "stopped while preparing the data; nothing was kept of it")
        if number == signal.SIGTERM:  # a worker inherits this; its parent ends it
            os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------- one chunk


def is_blank(line: str) -> bool:
    """Whether nothing in a line is visible: spaces, controls and formats only (U+200B, U+FEFF)."""
    return all(unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cf") for c in line)


class _Encoded(NamedTuple):
    reasons: list[str | None]
    """For each pair why it is dropped, None when it is kept."""
    source: list[list[int]]
    """The ids of the kept pairs, each list ending in `</s>`."""
    target: list[list[int]]


def _encode(
    sources: Sequence[str | None], targets: Sequence[str | None], known: Vocabulary,
    max_length: int, held: Held,
) -> _Encoded:  # fmt: skip
    """Encode pairs and say which are dropped."""
    reasons = [_reason(a, b, held) for a, b in zip(sources, targets, strict=True)]
    for row, reason in enumerate(reasons):
        if reason is None and _surely_long(sources[row], targets[row], known, max_length):
            reasons[row] = "too_long"
    rows = [row for row, reason in enumerate(reasons) if reason is None]
    source_ids = known.encode_source([sources[row] or "" for row in rows])
    target_ids = known.encode_target([targets[row] or "" for row in rows])
    kept_source, kept_target = [], []
    for row, a, b in zip(rows, source_ids, target_ids, strict=True):
        if not a or not b:
            reasons[row] = "empty"
        elif max(len(a), len(b)) >= max_length:  # `</s>` is one more
            reasons[row] = "too_long"
        else:
            kept_source.append([*a, END])
            kept_target.append([*b, END])
    return _Encoded(reasons, kept_source, kept_target)


def _reason(source: str | None, target: str | None, held: Held) -> str | None:
    if not source or not target or is_blank(source) or is_blank(target):
        return "empty"
    if "\0" in source or "\0" in target:
        return "nul"
    if held and fold(target) in held.get(fold(source), ()):
        return "overlap"
    return None


def _surely_long(
    source: str | None, target: str | None, known: Vocabulary, max_length: int
) -> bool:
    """Whether a line is too long even in the longest pieces, so that no time goes into cutting it."""
    for line, side in ((source, known.source), (target, known.target)):
        reach = (side.longest or 0) * max_length
        if reach and len(line or "") > reach and (side is known.target or len(fold(line or "")) > reach):
            return True
    return False


def _pack(ids: list[list[int]], dtype: str) -> tuple[bytes, bytes]:
    tokens = np.array(list(chain.from_iterable(ids)), dtype)
    return tokens.tobytes(), np.array([len(line) for line in ids], np.int32).tobytes()


def _encode_row(
    row: dict[str, Any], known: Vocabulary, max_length: int, held: Held, dtype: str
) -> dict[str, Any]:
    """What a worker makes of a chunk: flat bytes and counts, so that no lists enter Arrow."""
    encoded = _encode(row["source"], row["target"], known, max_length, held)
    dropped = Counter(reason for reason in encoded.reasons if reason)
    packed = {side: _pack(getattr(encoded, side), dtype) for side in SIDES}
    tokens = {f"{side}_tokens": packed[side][0] for side in SIDES}
    lengths = {f"{side}_lengths": packed[side][1] for side in SIDES}
    counts = {reason: dropped[reason] for reason in REASONS}
    return {**tokens, **lengths, **counts, "pairs": len(encoded.reasons)}
