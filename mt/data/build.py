"""Build a cache entry: read, learn the vocabulary, encode, count."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from mt.config.recipe import Recipe
from mt.config.schema import Languages
from mt.data.cache import FORMAT, CorpusSource, section_values
from mt.data.corpus import SIDES, Writer, token_type
from mt.data.encode import (
    CHUNK_PAIRS,
    EMPTY_CORPUS_ADVICE,
    REASONS,
    HeldOut,
    chunk_pairs,
    encode,
    encode_chunk,
    encode_options,
    held_out_pairs,
    sample_lines,
    to_row,
)
from mt.data.pairs import Pair, read_pairs
from mt.data.streaming import StreamRanks, read_chunks, shard_order_seed
from mt.errors import DataError, MachineError, MtError, Stopped
from mt.runtime import files
from mt.runtime.device import physical_cores
from mt.vocabulary import learn, vocabulary
from mt.vocabulary.vocabulary import Vocabulary

_MIN_PARALLEL_PAIRS = 5_000
_ROWS_IN_MEMORY = 8  # rows that `datasets` collects before it writes, each a chunk
_Counts = Counter[str]
"""Pairs read, and those dropped for each reason."""


class CorpusBuilder:
    """One building of a cache folder, step by step.

    Args:
        recipe: what to build.
        sources: its corpora, by name.
        folder: the hidden folder to fill.
        tell: where a line of progress goes.
        inherited: the vocabulary, when another model's is used.
    """

    def __init__(
        self, recipe: Recipe, sources: list[CorpusSource], folder: Path,
        tell: Callable[[str], None], inherited: Vocabulary | None,
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
        with _quiet_datasets(), _unwrap_errors():
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
        files.delete(self.work)
        return report

    def _keep_for_streams(self, held: HeldOut) -> str:
        """Write what a stream must leave out; the hash of that and of what is to be read."""
        texts = {source: sorted(targets) for source, targets in held.items()}
        files.write_json(self.folder / "held.json", texts)
        return files.digest_json([texts, [section_values(s.config, s.files) for s in self.train]])

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
        datasets = _import_datasets()
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
            for chunk in chunk_pairs(read_pairs(source.config)):
                self.read[number] += len(chunk["source"])
                yield {"corpus": number, **chunk}
            if not self.read[number]:
                advice = "see the corpus in the recipe: is it the right file?"
                raise DataError("DATA-EMPTY", source.where, "there are no pairs in it", advice)

    def _beginning(self) -> Iterator[dict[str, Any]]:
        """A chunk of each streamed corpus at least, and as much as the vocabulary asks for."""
        config, corpora = self.recipe.vocabulary, self.recipe.data.train
        for source in self.train:
            if next(read_chunks([source.config], 1, StreamRanks(), None), None) is None:
                advice = "see the corpus in the recipe: is it the right file?"
                raise DataError("DATA-EMPTY", source.where, "there are no pairs in it", advice)
        wanted = config.sample if config.path is None and self.inherited is None else 1
        for chunk, _ in read_chunks(corpora, shard_order_seed(config.seed), StreamRanks(), None):
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
        lines = {side: sample_lines(chunks, side, config) for side in SIDES}
        corpora = [self.recipe.languages, *(source.config.direction for source in self.train)]
        codes = [" ".join(getattr(each, side) for each in corpora) for side in SIDES]
        languages = Languages(source=codes[0], target=codes[1])
        known = learn.learn_vocabulary(
            config, languages, lines["source"], lines["target"], self.monolingual
        )
        return self._named(known)

    def _named(self, known: Vocabulary) -> Vocabulary:
        """The vocabulary with a name for each language that a source has to tell."""
        told = self.recipe.targets if known.languages else self.recipe.told_languages
        return known.naming([vocabulary.language_tag(language) for language in told])

    def _held_out(self, valid: list[Pair]) -> HeldOut:
        tests = [s for s in self.sources.values() if s.name.startswith("test.")]
        pairs = chain(valid, *(read_pairs(source.config) for source in tests))
        return held_out_pairs(pairs, self.monolingual) if self.recipe.data.drop_overlap else {}

    def _encode_valid(
        self, corpora: dict[str, list[Pair]], known: Vocabulary, dtype: str
    ) -> dict[str, _Counts]:
        limit, counts = self.recipe.data.max_length, {name: Counter[str]() for name in corpora}
        kept: list[Pair] = []
        with Writer(self.folder, "valid", dtype, known.digest) as writer:
            for name, start in _chunks_of(corpora):
                how = encode_options(self.sources[name].config, known)
                part = corpora[name][start : start + CHUNK_PAIRS]
                sources, targets = [p.source for p in part], [p.target for p in part]
                encoded = encode(sources, targets, known, limit, {}, how)
                _write_chunk(writer, to_row(encoded, dtype), counts[name])
                kept += [p for p, why in zip(part, encoded.reasons, strict=True) if why is None]
        lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in kept]
        files.write_file(self.folder / "valid.pairs.jsonl", "".join(lines))
        return counts

    def _encode_train(
        self, chunks: Any, known: Vocabulary, held: HeldOut, dtype: str
    ) -> list[_Counts]:
        counts = [Counter[str]() for _ in self.train]
        limit = self.recipe.data.max_length
        settings = {"known": known, "max_length": limit, "held": held, "dtype": dtype}
        settings["treatments"] = [encode_options(source.config, known) for source in self.train]
        with Writer(self.folder, "train", dtype, known.digest) as writer:
            for row in self._mapped(chunks, settings):
                _write_chunk(writer, row, counts[row["corpus"]])
        return counts

    def _mapped(self, chunks: Any, settings: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """The encoded chunks, in order; encoded by several processes when there are many pairs."""
        datasets = _import_datasets()
        pairs = sum(self.read)
        wanted = self.recipe.data.processes
        processes = min(physical_cores() if wanted == "auto" else wanted, len(chunks))
        self.tell(f"encoding {pairs:,} pairs in {processes} processes")
        if pairs < _MIN_PARALLEL_PAIRS or processes == 1:
            return (
                {**encode_chunk(chunk, **settings), "corpus": chunk["corpus"]} for chunk in chunks
            )
        kinds = {"corpus": "int32", "pairs": "int64"} | dict.fromkeys(REASONS, "int64")
        kinds |= {f"{s}_{part}": "large_binary" for s in SIDES for part in ("tokens", "lengths")}
        with warnings.catch_warnings():
            # The workers are forked before anything here has started a thread that they need.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            rows: Iterable[dict[str, Any]] = chunks.map(
                encode_chunk, fn_kwargs=settings, num_proc=processes,
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
            corpora = {source.name: _corpus_report(source, counts) for source, counts in each}
        corpora |= {
            name: _corpus_report(self.sources[name], counts) for name, counts in valid.items()
        }
        written = [name for name in ("train", "valid") if (self.folder / f"{name}.json").exists()]
        headers = {name: files.read_json(self.folder / f"{name}.json") for name in written}
        if "train" in headers:
            kept = sum(counts["pairs"] - _num_dropped(counts) for counts in train)
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


def _write_chunk(writer: Writer, row: dict[str, Any], counts: _Counts) -> None:
    """Write an encoded chunk and count it; what came in is what is kept and what is dropped."""
    before = writer.pairs
    tokens, lengths = ({s: row[f"{s}_{part}"] for s in SIDES} for part in ("tokens", "lengths"))
    writer.append(tokens, lengths)
    now = Counter({reason: row[reason] for reason in ("pairs", *REASONS)})
    assert now["pairs"] == writer.pairs - before + _num_dropped(now), "pairs were lost"
    counts.update(now)


def _num_dropped(counts: _Counts) -> int:
    return sum(counts[reason] for reason in REASONS)


def _corpus_report(source: CorpusSource, counts: _Counts) -> dict[str, Any]:
    kept = counts["pairs"] - _num_dropped(counts)
    if not kept:
        worst = max(REASONS, key=lambda reason: counts[reason])
        what = f"none of {counts['pairs']} pairs is left; {counts[worst]} dropped as {worst}"
        raise DataError("DATA-EMPTY", source.where, what, EMPTY_CORPUS_ADVICE[worst])
    return {
        "kind": source.config.kind, "files": source.files, "pairs": counts["pairs"], "kept": kept,
        "dropped": {reason: counts[reason] for reason in REASONS},
    }  # fmt: skip


def format_report(report: dict[str, Any]) -> Iterator[str]:
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


def _import_datasets() -> Any:
    import datasets  # here, so that a prepared corpus can be trained on without it

    return datasets


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars of `datasets`: the screen is ours."""
    datasets = _import_datasets()
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _unwrap_errors() -> Iterator[None]:
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
