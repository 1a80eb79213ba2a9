"""Sources to vocabulary to encoded corpus, once: kept in a cache under the hash of what went in.

Reading and encoding are done by `datasets` in chunks of about a thousand pairs; a chunk comes
back as one row of bytes, which is appended to flat files. Memory does not grow with the corpus.
Of corpora that training will stream only the beginning is read, to learn a vocabulary from.
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
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

from mt.checkpoints import checkpoint
from mt.config.recipe import Recipe
from mt.config.yaml_reader import Section, input_files, plugin
from mt.data.corpus import SIDES, Corpus, EncodedPairs, Writer, token_type
from mt.data.encode import (
    CHUNK_PAIRS,
    MENDED,
    REASONS,
    Held,
    as_row,
    chunked,
    encode,
    encode_row,
    held_out,
    one_side,
    sampled,
    treatment,  # fmt: skip
)
from mt.data.streaming import Processes, Window, order_of, read
from mt.decoding import ibm_model1, shortlist
from mt.errors import DataError, MachineError, ModelError, MtError, Stopped
from mt.interfaces import MASK, Languages, Pair, SourceConfig
from mt.runtime import files
from mt.runtime.distributed import physical_cores
from mt.training import finetuning
from mt.vocabulary import vocabulary
from mt.vocabulary.vocabulary import Vocabulary

FORMAT = 1
"""Part of the hash: another number and every cache is built again."""
_FEW_PAIRS = 5_000
_ROWS_IN_MEMORY = 8  # rows that `datasets` collects before it writes, each a chunk
_Counts = Counter[str]
"""Pairs read, and those dropped for each reason."""


@dataclass(frozen=True)
class Prepared:
    """What training needs of the data."""

    vocabulary: Vocabulary
    train: Corpus | None
    """The training corpora; None where they are streamed."""
    valid: Corpus
    valid_pairs: list[Pair]
    """The raw pairs of `valid`, in the same order."""
    report: dict[str, Any]
    """What was read, kept and dropped, as in `report.json`."""
    folder: Path
    held: Held
    """The pairs that a stream must leave out; empty where there is none."""

    @property
    def digest(self) -> str:
        """Of the training pairs; of what is known of them beforehand where they are streamed."""
        told: str = self.train.digest if self.train is not None else self.report["stream"]
        return told

    @property
    def parts(self) -> tuple[int, ...]:
        """How many pairs of `train` are of each training corpus; they stand in this order."""
        corpora = self.report["corpora"]
        names = sorted((n for n in corpora if n.startswith("train.")), key=lambda n: int(n[6:]))
        return tuple(corpora[name]["kept"] for name in names if "kept" in corpora[name])


def read_pairs(config: SourceConfig) -> Iterable[Pair]:
    """The raw pairs of a source; can be iterated again."""
    pairs: Iterable[Pair] = plugin("sources", config.kind).read(config)
    return one_side(pairs, config)


def _to_screen(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare(
    recipe: Recipe, tell: Callable[[str], None] = _to_screen, run: Path | None = None
) -> Prepared:
    """The vocabulary and the encoded corpora of a recipe, from the cache when they are there.

    May be called by several processes at once; one builds, the others wait.

    Args:
        recipe: what to prepare for.
        tell: where a line of progress goes.
        run: the run that it is for, which knows its vocabulary if it has been begun.

    Raises:
        DataError: the data are missing, damaged or empty, or changed while they were read.
        ConfigError, ModelError: the vocabulary cannot be learned or is none.
        DownloadError: a hub data set could not be fetched.
        Stopped: a signal asked to stop; nothing half-made is left.
    """
    sources, known = _sources(recipe), finetuning.inherited(recipe, run)
    folder = files.cache_folder() / "corpora" / _key(recipe, sources, known)
    with files.lock(_lock_of(folder), wait=True), _stoppable():
        _sweep(folder)
        if folder.exists():
            try:
                return _open(folder, sources, tell)
            except ModelError as error:
                (where, what), *_ = error.problems
                tell(f"warning: {where}: {what}; it is built again")
                files.discard(folder)
        with files.new_folder(folder) as hidden:
            report = _Build(recipe, sources, hidden, tell, known).run()
        for line in _table(report):
            tell(line)
        return _open(folder, sources, lambda _: None)


def learn_shortlist(
    path: Path, count: int = shortlist.PIECES, frequent: int = shortlist.FREQUENT,
    most: int = shortlist.PAIRS, tell: Callable[[str], None] = _to_screen,
) -> None:  # fmt: skip
    """Learn the lexical shortlist of a run from its training data, and write it into the run.

    Args:
        path: a run directory, or a checkpoint folder in one.
        count: target pieces kept for each source piece.
        frequent: the most frequent target pieces, kept for every source.
        most: pairs to learn from, spread over the corpora; of streamed ones the first.
        tell: where a line of progress goes.

    Raises:
        ModelError: there is no such run, or its data give another vocabulary now.
        DataError: the data are not there any more.
    """
    opened = checkpoint.open_run(path)
    prepared = prepare(opened.recipe, tell, opened.run)
    known = opened.vocabulary
    if prepared.vocabulary.digest != known.digest:
        what = "the data of its recipe give another vocabulary now: they have changed"
        advice = "restore the data that the run was trained on"
        raise ModelError("VOCAB-MISMATCH", opened.run, what, advice)
    pairs: EncodedPairs | None = prepared.train
    if pairs is None:
        pairs = _first_pairs(opened.recipe, prepared, most)
    rows = ibm_model1.spread(pairs, most)
    tokens, offsets = pairs.arrays("source")
    rows = rows[tokens[offsets[rows]] != MASK]  # text alone says nothing of translation
    if not len(rows):
        what = "it was trained on text of one side only, which says nothing of translation"
        raise DataError("SHORTLIST-NONE", opened.run, what, "fine-tune it on pairs first")
    tell(f"learning a shortlist from {len(rows):,} of {len(pairs):,} pairs")
    found = shortlist.learn(
        pairs, rows, known.source_size, known.target_size, known.joint, count, frequent
    )
    shortlist.save(found, opened.run, known.digest)


def _first_pairs(recipe: Recipe, prepared: Prepared, most: int) -> EncodedPairs:
    """The first pairs of a stream, encoded."""
    known, limit = prepared.vocabulary, recipe.data.max_length
    dtype, rows, count = token_type(known.size), [], 0
    how = [treatment(config, known) for config in recipe.data.train]
    for chunk, _ in read(recipe.data.train, order_of(recipe.training.seed), Processes(), None):
        if recipe.data.train[chunk.corpus].side is not None:
            continue
        encoded = encode(chunk.source, chunk.target, known, limit, prepared.held, how[chunk.corpus])
        rows.append(as_row(encoded, dtype))
        count += len(encoded.source)
        if count >= most:
            break
    return Window(rows, dtype)


# ----------------------------------------------------------------------------- the cache


@dataclass(frozen=True)
class _Source:
    """A corpus of the recipe and what its files are."""

    name: str
    config: SourceConfig
    files: dict[str, dict[str, str]]
    """For each key that names a file its path and sha256, or its size where it is streamed."""

    @property
    def where(self) -> str:
        paths = [file["path"] for file in self.files.values()]
        return f"data.{self.name} ({', '.join(paths) or self.config.kind})"


def changed_files(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str]]:
    """The files whose bytes differ between two reports of a recipe: each path, and both hashes."""
    old, new = ({**r.get("corpora", {}), **r.get("held_out", {})} for r in (before, now))
    return [
        (file["path"], f"sha256 {old[name]['files'][key]['sha256']} -> {file['sha256']}")
        for name in new if name in old
        for key, file in new[name]["files"].items()
        if old[name]["files"].get(key, file)["sha256"] != file["sha256"]
    ]  # fmt: skip


def _sources(recipe: Recipe) -> list[_Source]:
    data = recipe.data
    train = {f"train.{i}": source for i, source in enumerate(data.train)}
    named = {"valid": data.valid}
    named |= {f"valid.{i}": source for i, source in enumerate(data.more_valid, start=1)}
    if data.drop_overlap:
        named |= {f"test.{name}": source for name, source in data.test.items()}
    facts = _sizes if data.streaming else _inputs
    return [
        *(_Source(name, config, facts(config)) for name, config in train.items()),
        *(_Source(name, config, _inputs(config)) for name, config in named.items()),
    ]


def _sizes(section: Section) -> dict[str, dict[str, str]]:
    """What is known of input files without reading them."""
    found = {}
    for key, path in input_files(section).items():
        files.open_bytes(Path(path)).close()  # says what is wrong with the path
        found[key] = {"path": path, "bytes": str(Path(path).stat().st_size)}
    return found


def _inputs(section: Section) -> dict[str, dict[str, str]]:
    found = {}
    for key, path in input_files(section).items():
        file = Path(path)
        if isinstance(section, vocabulary.Config):
            file = file / "vocabulary.json" if file.is_dir() else file
            if not file.is_file():
                advice = "see vocabulary.path: a SentencePiece .model, or a run directory"
                raise ModelError("VOCAB-NONE", path, "there is no vocabulary there", advice)
        with files.open_bytes(file):  # says what is wrong with the path
            pass
        found[key] = {"path": path, "sha256": files.sha256(file)}
    return found


def _key(recipe: Recipe, sources: Sequence[_Source], known: Vocabulary | None) -> str:
    """The hash of what decides the result: files by content, all else by value."""
    cut = _learned(recipe.vocabulary) if known is None else known.digest
    everything = [
        FORMAT, vocabulary.FORMAT, recipe.languages.model_dump(),
        recipe.data.max_length, recipe.data.drop_overlap, recipe.data.streaming,
        cut,
        [[s.name, _values(s.config, s.files), _code_of(s.config.kind)] for s in sources],
    ]  # fmt: skip
    return _hash(everything)[:16]


def _learned(config: vocabulary.Config) -> dict[str, Any]:
    """The values that decide what a vocabulary is; how training draws from it is not one."""
    values = _values(config, _inputs(config))
    return {key: value for key, value in values.items() if key != "sampling"}


def _values(section: Section, inputs: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The values of a section, its input files by their content, or size where it is streamed."""
    values = section.model_dump(mode="json", exclude={key.split(".")[0] for key in inputs})
    for key in ("only", "tag"):  # which corpora did not have at first
        if values.get(key, "") is None:
            del values[key]
    return values | {key: file.get("sha256", file.get("bytes")) for key, file in inputs.items()}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _code_of(kind: str) -> list[str]:
    """The hashes of a source's own files: what it reads may change with them."""
    module = Path(plugin("sources", kind).__file__)
    private = [path for path in module.parent.glob(f"_{module.stem}/*") if path.is_file()]
    return [files.sha256(path) for path in sorted([module, *private])]


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


def _open(folder: Path, sources: Sequence[_Source], tell: Callable[[str], None]) -> Prepared:
    """What a finished cache folder holds; ModelError when it is damaged."""
    where = folder / "report.json"
    try:
        report = files.read_json(where)
        for source in sources:  # the same content may have been read from another place
            part = "held_out" if source.name.startswith("test.") else "corpora"
            report[part][source.name]["files"] = source.files
        pairs = [Pair(**json.loads(line)) for line in files.lines(folder / "valid.pairs.jsonl")]
        held = files.read_json(folder / "held.json") if "stream" in report else {}
    except (OSError, ValueError, TypeError, KeyError, DataError) as error:
        what = f"damaged ({error})"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again") from None
    known = Vocabulary.load(folder)
    train = None if "stream" in report else Corpus.open(folder, "train")
    valid = Corpus.open(folder, "valid")
    if {corpus.header["vocabulary"] for corpus in (train or valid, valid)} != {known.digest}:
        what = "the vocabulary is not the one that encoded the corpus"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")
    if len(pairs) != len(valid):
        what = f"{len(pairs)} validation pairs, {len(valid)} of them encoded"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")
    told = "streamed" if train is None else f"{len(train):,}"
    tell(f"{told} pairs, {known.size:,} pieces, from the cache ({folder})")
    texts = {source: set(targets) for source, targets in held.items()}
    return Prepared(known, train, valid, pairs, report, folder, texts)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turns SIGINT and SIGTERM to an exception, so that everything is cleaned up."""
    owner = os.getpid()
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            asked.append(number)
            raise Stopped(number, "stopped while preparing the data; nothing was kept of it")
        if number == signal.SIGTERM:  # a worker inherits this; its parent ends it
            os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
        if asked:  # it came inside a destructor, whose exceptions Python drops
            raise Stopped(asked[0], "stopped while preparing the data; what was prepared is kept")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------ building


class _Build:
    """One building of a cache folder, step by step.

    Args:
        recipe: what to build.
        sources: its corpora, by name.
        folder: the hidden folder to fill.
        tell: where a line of progress goes.
        inherited: the vocabulary, when another model's is used.
    """

    def __init__(
        self, recipe: Recipe, sources: list[_Source], folder: Path, tell: Callable[[str], None],
        inherited: Vocabulary | None,
    ) -> None:  # fmt: skip
        self.recipe, self.folder, self.tell, self.inherited = recipe, folder, tell, inherited
        self.sources = {source.name: source for source in sources}
        self.train = [source for source in sources if source.name.startswith("train.")]
        self.valid = [source for source in sources if source.name.startswith("valid")]
        self.monolingual = any(source.config.side is not None for source in self.train)
        self.work = files.make_folder(folder / "work")
        self.seconds: dict[str, float] = {}
        self.read: list[int] = []

    def run(self) -> dict[str, Any]:
        """Fill the folder; the report."""
        stamps = self._stamps()
        with _quiet_datasets(), _unwrapped():
            with self._timed("reading"):
                chunks = self._read()
                valid = {s.name: list(read_pairs(s.config)) for s in self.valid}
                held = self._held_out(list(chain(*valid.values())))
            with self._timed("vocabulary"):
                known = self._learn(chunks)
                known.save(self.folder)
            with self._timed("encoding"):
                dtype = token_type(known.size)
                valid_counts = self._encode_valid(valid, known, dtype)
                counts = []
                if not self.recipe.data.streaming:
                    counts = self._encode_train(chunks, known, held, dtype)
        if stamps != self._stamps():
            advice = "run the command again when nothing writes to them"
            what = "a file changed while it was read"
            raise DataError("DATA-CHANGED", "data", what, advice)
        report = self._report(counts, valid_counts, known)
        if self.recipe.data.streaming:
            report["stream"] = self._keep_for_streams(held)
        files.write_json(self.folder / "report.json", report)
        files.discard(self.work)
        return report

    def _keep_for_streams(self, held: Held) -> str:
        """Write what a stream must leave out; the hash of that and of what is to be read."""
        texts = {source: sorted(targets) for source, targets in held.items()}
        files.write_json(self.folder / "held.json", texts)
        return _hash([texts, [_values(s.config, s.files) for s in self.train]])

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 3)

    def _stamps(self) -> list[tuple[int, int]]:
        paths = [f["path"] for source in self.sources.values() for f in source.files.values()]
        stats = [Path(path).stat() for path in paths]
        return [(stat.st_size, stat.st_mtime_ns) for stat in stats]

    def _read(self) -> Any:
        """All training pairs as a `datasets.Dataset` of chunks."""
        datasets = _datasets()
        streaming = self.recipe.data.streaming
        part = "the beginning of " if streaming else ""
        self.tell(f"reading {part}{len(self.train)} training corpora")
        text = datasets.List(datasets.Value("string"))
        return datasets.Dataset.from_generator(
            self._beginning if streaming else self._chunks,
            features=datasets.Features(
                {"corpus": datasets.Value("int32"), "source": text, "target": text}
            ),
            cache_dir=str(self.work), fingerprint="chunks", writer_batch_size=_ROWS_IN_MEMORY,
        )  # fmt: skip

    def _chunks(self) -> Iterator[dict[str, Any]]:
        for number, source in enumerate(self.train):
            self.read.append(0)
            for chunk in chunked(read_pairs(source.config)):
                self.read[number] += len(chunk["source"])
                yield {"corpus": number, **chunk}
            if not self.read[number]:
                advice = "see the corpus in the recipe: is it the right file?"
                raise DataError("DATA-EMPTY", source.where, "there are no pairs in it", advice)

    def _beginning(self) -> Iterator[dict[str, Any]]:
        """A chunk of each streamed corpus at least, and as much as the vocabulary asks for."""
        config, corpora = self.recipe.vocabulary, self.recipe.data.train
        for source in self.train:
            if next(read([source.config], 1, Processes(), None), None) is None:
                advice = "see the corpus in the recipe: is it the right file?"
                raise DataError("DATA-EMPTY", source.where, "there are no pairs in it", advice)
        wanted = config.sample if config.path is None and self.inherited is None else 1
        for chunk, _ in read(corpora, order_of(config.seed), Processes(), None):
            self.read.append(len(chunk.source))
            yield {"corpus": 0, "source": chunk.source, "target": chunk.target}
            if sum(self.read) >= wanted:
                return

    def _learn(self, chunks: Any) -> Vocabulary:
        config = self.recipe.vocabulary
        if self.inherited is not None:
            return self._named(self.inherited)
        if config.path is None:
            self.tell(f"learning a vocabulary of {config.size:,}")
        lines = {side: sampled(chunks, side, config) for side in SIDES}
        corpora = [self.recipe.languages, *(source.config.direction for source in self.train)]
        codes = [" ".join(getattr(each, side) for each in corpora) for side in SIDES]
        languages = Languages(source=codes[0], target=codes[1])
        known = vocabulary.train(
            config, languages, lines["source"], lines["target"], self.monolingual
        )
        return self._named(known)

    def _named(self, known: Vocabulary) -> Vocabulary:
        """The vocabulary with a name for each language that a source has to tell."""
        told = self.recipe.targets if known.languages else self.recipe.told_languages
        return known.naming([vocabulary.tag(language) for language in told])

    def _held_out(self, valid: list[Pair]) -> Held:
        tests = [s for s in self.sources.values() if s.name.startswith("test.")]
        pairs = chain(valid, *(read_pairs(source.config) for source in tests))
        return held_out(pairs, self.monolingual) if self.recipe.data.drop_overlap else {}

    def _encode_valid(
        self, corpora: dict[str, list[Pair]], known: Vocabulary, dtype: str
    ) -> dict[str, _Counts]:
        limit, counts = self.recipe.data.max_length, {name: Counter[str]() for name in corpora}
        kept: list[Pair] = []
        with Writer(self.folder, "valid", dtype, known.digest) as writer:
            for name, start in _chunks_of(corpora):
                how = treatment(self.sources[name].config, known)
                part = corpora[name][start : start + CHUNK_PAIRS]
                sources, targets = [p.source for p in part], [p.target for p in part]
                encoded = encode(sources, targets, known, limit, {}, how)
                _append(writer, as_row(encoded, dtype), counts[name])
                kept += [p for p, why in zip(part, encoded.reasons, strict=True) if why is None]
        lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in kept]
        files.write(self.folder / "valid.pairs.jsonl", "".join(lines))
        return counts

    def _encode_train(
        self, chunks: Any, known: Vocabulary, held: Held, dtype: str
    ) -> list[_Counts]:
        counts = [Counter[str]() for _ in self.train]
        limit = self.recipe.data.max_length
        settings = {"known": known, "max_length": limit, "held": held, "dtype": dtype}
        settings["treatments"] = [treatment(source.config, known) for source in self.train]
        with Writer(self.folder, "train", dtype, known.digest) as writer:
            for row in self._mapped(chunks, settings):
                _append(writer, row, counts[row["corpus"]])
        return counts

    def _mapped(self, chunks: Any, settings: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """The encoded chunks, in order; encoded by several processes when there are many pairs."""
        datasets = _datasets()
        pairs = sum(self.read)
        wanted = self.recipe.data.processes
        processes = min(physical_cores() if wanted == "auto" else wanted, len(chunks))
        self.tell(f"encoding {pairs:,} pairs in {processes} processes")
        if pairs < _FEW_PAIRS or processes == 1:
            return (
                {**encode_row(chunk, **settings), "corpus": chunk["corpus"]} for chunk in chunks
            )
        kinds = {"corpus": "int32", "pairs": "int64"} | dict.fromkeys(REASONS, "int64")
        kinds |= {f"{s}_{part}": "large_binary" for s in SIDES for part in ("tokens", "lengths")}
        with warnings.catch_warnings():
            # The workers are forked before anything here has started a thread that they need.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            rows: Iterable[dict[str, Any]] = chunks.map(
                encode_row, fn_kwargs=settings, num_proc=processes,
                remove_columns=list(SIDES), load_from_cache_file=False,
                features=datasets.Features({k: datasets.Value(v) for k, v in kinds.items()}),
                cache_file_name=str(self.work / "encoded.arrow"), new_fingerprint="encoded",
                writer_batch_size=_ROWS_IN_MEMORY,
            )  # fmt: skip
        return rows

    def _report(
        self, train: list[_Counts], valid: dict[str, _Counts], known: Vocabulary
    ) -> dict[str, Any]:
        """What was read, kept and dropped; refuses a corpus of which nothing is left."""
        if self.recipe.data.streaming:
            corpora = {s.name: {"kind": s.config.kind, "files": s.files} for s in self.train}
        else:
            each = zip(self.train, train, strict=True)
            corpora = {source.name: _told(source, counts) for source, counts in each}
        corpora |= {name: _told(self.sources[name], counts) for name, counts in valid.items()}
        written = [name for name in ("train", "valid") if (self.folder / f"{name}.json").exists()]
        headers = {name: files.read_json(self.folder / f"{name}.json") for name in written}
        if "train" in headers:
            kept = sum(counts["pairs"] - _dropped(counts) for counts in train)
            assert sum(self.read) == sum(counts["pairs"] for counts in train), "pairs were lost"
            assert headers["train"]["pairs"] == kept, "pairs were lost"
        return {
            "format": FORMAT,
            "corpora": corpora,
            "held_out": {
                name: {"kind": source.config.kind, "files": source.files}
                for name, source in self.sources.items() if name.startswith("test.")
            },
            "tokens": {name: header["tokens"] for name, header in headers.items()},
            "vocabulary": {
                "kind": known.kind, "joint": known.joint, "digest": known.digest,
                "source_size": known.source_size, "target_size": known.target_size,
            },
            "seconds": self.seconds,
        }  # fmt: skip


def _chunks_of(corpora: dict[str, list[Pair]]) -> Iterator[tuple[str, int]]:
    """Each corpus and where each of its chunks begins."""
    for name, pairs in corpora.items():
        yield from ((name, start) for start in range(0, len(pairs), CHUNK_PAIRS))


def _append(writer: Writer, row: dict[str, Any], counts: _Counts) -> None:
    """Write an encoded chunk and count it; what came in is what is kept and what is dropped."""
    before = writer.pairs
    tokens, lengths = ({s: row[f"{s}_{part}"] for s in SIDES} for part in ("tokens", "lengths"))
    writer.append(tokens, lengths)
    now = Counter({reason: row[reason] for reason in ("pairs", *REASONS)})
    assert now["pairs"] == writer.pairs - before + _dropped(now), "pairs were lost"
    counts.update(now)


def _dropped(counts: _Counts) -> int:
    return sum(counts[reason] for reason in REASONS)


def _told(source: _Source, counts: _Counts) -> dict[str, Any]:
    kept = counts["pairs"] - _dropped(counts)
    if not kept:
        worst = max(REASONS, key=lambda reason: counts[reason])
        what = f"none of {counts['pairs']} pairs is left; {counts[worst]} dropped as {worst}"
        raise DataError("DATA-EMPTY", source.where, what, MENDED[worst])
    return {
        "kind": source.config.kind, "files": source.files, "pairs": counts["pairs"], "kept": kept,
        "dropped": {reason: counts[reason] for reason in REASONS},
    }  # fmt: skip


def _table(report: dict[str, Any]) -> Iterator[str]:
    """The report as a few lines for a screen."""
    yield f"{'corpus':<12}{'pairs':>12}{'kept':>12}" + "".join(f"{r:>10}" for r in REASONS)
    for name, corpus in report["corpora"].items():
        if "pairs" not in corpus:
            yield f"{name:<12}{'streamed':>12}"
            continue
        dropped = "".join(f"{corpus['dropped'][reason]:>10,}" for reason in REASONS)
        yield f"{name:<12}{corpus['pairs']:>12,}{corpus['kept']:>12,}{dropped}"
    known, tokens = report["vocabulary"], report["tokens"].get("train")
    sizes = {known["source_size"], known["target_size"]}
    pieces = " and ".join(f"{size:,}" for size in sizes)
    if tokens is None:
        yield f"{pieces} pieces"
    else:
        yield f"{pieces} pieces; {tokens['source']:,} source and {tokens['target']:,} target tokens"


def _datasets() -> Any:
    import datasets  # here, so that a prepared corpus can be trained on without it

    return datasets


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars of `datasets`: the screen is ours."""
    datasets = _datasets()
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """What `datasets` wraps that our own code raised is raised as it was."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MtError | Stopped | OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None and cause is not error:
            raise cause from None
        if "subprocesses has abruptly died" in str(error):
            advice = "is there memory enough? set data.processes=1 to see"
            what = "a process that encodes was killed"
            raise MachineError("WORKER-DIED", "prepare", what, advice) from None
        raise
