"""Build a cache entry: read, learn the vocabulary, encode, count.

The training pairs are read once, into chunks on disk; the vocabulary is learned from a sample of
them, and worker processes encode them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mt.config.recipe import Recipe
from mt.config.schema import Languages
from mt.data import cleaning, encode
from mt.data.cache import FORMAT, CorpusSource, rule_values, section_values
from mt.data.corpus import SIDES, Writer, token_type
from mt.data.encode import CHUNK_PAIRS, REASONS, EncodeOptions, HeldOut
from mt.data.languages import base_code
from mt.data.pairs import Pair, read_pairs
from mt.data.process_pool import count_processes, map_in_order
from mt.data.sentences import UsualLengths, usual_lengths
from mt.data.streaming import read_chunks, shard_order_seed
from mt.errors import DataError
from mt.runtime import files, model_files
from mt.runtime.distributed import SINGLE
from mt.vocabulary import learn
from mt.vocabulary.vocabulary import Vocabulary, language_tag

_MIN_PARALLEL_PAIRS = 5_000
UNKNOWN_COUNTS = [f"{side}_{count}" for side in SIDES for count in ("pieces", "unknown")]
"""Counts of the pieces of each side, and of the unknown ones."""
_SAMPLED_LINES = 10_000
"""Training lines that the usual lengths are measured on."""
MOST_UNKNOWN = 0.9
"""A corpus with a larger unknown share is refused."""
MANY_UNKNOWN = 0.05
"""A larger share is reported in a warning."""
_Counts = Counter[str]
"""Pairs read, and those dropped for each reason."""
_Sides = tuple[list[str | None], list[str | None]]
"""Source and target lines."""


class Spool:
    """Raw chunks of the training corpora, in a file with a JSON line for each side."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # For each chunk its number of pairs, its corpus and the first byte of each side.
        self.pairs: list[int] = []
        self.corpora: list[int] = []
        self.offsets: dict[str, list[int]] = {side: [] for side in SIDES}

    def fill(self, chunks: Iterable[tuple[int, _Sides]]) -> None:
        """Write chunks, each with the number of its corpus."""
        position = 0
        with files.os_errors_as_mt_errors(self.path), files.open_new(self.path) as stream:
            for corpus, sides in chunks:
                self.corpora.append(corpus)
                self.pairs.append(len(sides[0]))
                for side, lines in zip(SIDES, sides, strict=True):
                    self.offsets[side].append(position)
                    position += stream.write(json.dumps(lines).encode() + b"\n")

    def read(self, chunk: int) -> _Sides:
        """Read the source and target lines of a chunk."""
        with open(self.path, "rb") as stream:
            stream.seek(self.offsets["source"][chunk])
            return json.loads(stream.readline()), json.loads(stream.readline())

    def sample(self, side: str, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[str]:
        """Yield the non-empty lines of one side at `rows`, which are ascending."""
        ends = np.cumsum([0, *self.pairs])
        with open(self.path, "rb") as stream:
            for chunk, (first, end) in enumerate(pairwise(ends)):
                low, high = np.searchsorted(rows, (first, end))
                if low < high:
                    stream.seek(self.offsets[side][chunk])
                    lines = json.loads(stream.readline())
                    yield from filter(None, (lines[row - first] for row in rows[low:high]))


class _Encoder(NamedTuple):
    """What a worker needs to encode a chunk of the spool."""

    spool: Spool
    vocabulary: Vocabulary
    max_length: int
    held_out: HeldOut
    dtype: str
    options: list[EncodeOptions]

    def encode(self, chunk: int) -> dict[str, Any]:
        corpus = self.spool.corpora[chunk]
        encoded = encode.encode(
            *self.spool.read(chunk), self.vocabulary, self.max_length, self.held_out,
            self.options[corpus],
        )  # fmt: skip
        return {"corpus": corpus, **encode.to_row(encoded, self.dtype)}


class CorpusBuilder:
    """Fills a cache folder; `inherited` is the vocabulary when that of another model is used."""

    def __init__(
        self, recipe: Recipe, sources: list[CorpusSource], folder: Path,
        log: Callable[[str], None], inherited: Vocabulary | None,
    ) -> None:  # fmt: skip
        self.recipe, self.folder, self.log, self.inherited = recipe, folder, log, inherited
        self.sources = {source.name: source for source in sources}
        self.train = [source for source in sources if source.name.startswith("train.")]
        self.valid = [source for source in sources if source.name.startswith("valid")]
        self.reasons = tuple(dict.fromkeys((*REASONS, *(r.label for r in recipe.data.clean))))
        """Why training pairs may be dropped."""
        self.cleaned = [Counter[str]() for _ in self.train]
        """Pairs that `data.clean` drops from each training corpus, in all and by rule."""
        self.monolingual = any(source.config.side is not None for source in self.train)
        self.work = files.make_folder(folder / "work")
        self.spool = Spool(self.work / "chunks.jsonl")
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Fill the folder; return the report."""
        stamps = self._stamps()
        streaming = self.recipe.data.streaming
        with self._timed("reading"):
            part = "the beginning of " if streaming else ""
            self.log(f"reading {part}{len(self.train)} training corpora")
            self.spool.fill(self._beginning() if streaming else self._clean(self._chunks()))
            valid = {s.name: list(read_pairs(s.config)) for s in self.valid}
        with self._timed("vocabulary"):
            vocabulary = self._learn()
            vocabulary.save(self.folder)
            held_out = self._held_out(list(chain(*valid.values())), vocabulary)
        with self._timed("encoding"):
            dtype = token_type(vocabulary.size)
            valid_counts = self._encode_valid(valid, vocabulary, dtype)
            if streaming:
                self._check_stream(vocabulary)
            counts = [] if streaming else self._encode_train(vocabulary, held_out, dtype)
        if stamps != self._stamps():
            advice = "run the command again when nothing writes to them"
            raise DataError("DATA-CHANGED", "data", "a file changed while it was read", advice)
        report = self._report(counts, valid_counts, vocabulary)
        if streaming:
            report["stream"] = self._save_held_out(held_out)
        files.write_json(self.folder / "report.json", report)
        files.delete(self.work)
        return report

    def _save_held_out(self, held_out: HeldOut) -> str:
        """Write the pairs that a stream must drop; return the hash of them and of the corpora."""
        texts = {source: sorted(targets) for source, targets in held_out.items()}
        files.write_json(self.folder / "held.json", texts)
        rules = rule_values(self.recipe.data)
        return files.digest_json(
            [texts, [section_values(s.config, s.files) for s in self.train], *rules]
        )

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 3)

    def _stamps(self) -> list[tuple[int, int]]:
        paths = [f["path"] for source in self.sources.values() for f in source.files.values()]
        stats = [Path(path).stat() for path in paths]
        return [(stat.st_size, stat.st_mtime_ns) for stat in stats]

    def _chunks(self) -> Iterator[tuple[int, _Sides]]:
        for number, source in enumerate(self.train):
            empty = True
            for sides in encode.chunk_pairs(read_pairs(source.config)):
                empty = False
                yield number, sides
            if empty:
                self._refuse_empty(source)

    def _clean(self, chunks: Iterable[tuple[int, _Sides]]) -> Iterator[tuple[int, _Sides]]:
        """Drop and count the pairs that the rules of `data.clean` find.

        Raises:
            DataError: they leave nothing of a corpus.
        """
        data = self.recipe.data
        if not data.clean:
            yield from chunks
            return
        kept = Counter[int]()
        processes = count_processes(self.recipe.data.processes)
        self.log(f"cleaning by {len(data.clean)} rules in {processes} processes")
        cleaners = cleaning.cleaners_for(data, cleaning.held_out_texts(data), self.log)
        items = ((number, sides, None) for number, sides in chunks)
        for number, sides, _, findings in cleaning.clean_chunks(items, cleaners, processes):
            left = cleaning.drop_found(sides, findings)
            kept[number] += len(left[0])
            self.cleaned[number].update(finding.rule for finding in findings if finding)
            self.cleaned[number]["pairs"] += len(findings) - len(left[0])
            if left[0]:
                yield number, left
        for number, source in enumerate(self.train):
            if not kept[number]:
                raise encode.no_pairs_error(source.where, self.cleaned[number], self.reasons)

    def _beginning(self) -> Iterator[tuple[int, _Sides]]:
        """Yield the beginning of the streamed corpora, enough for the sample of the vocabulary."""
        config, corpora = self.recipe.vocabulary, self.recipe.data.train
        for source in self.train:
            if next(read_chunks([source.config], 1, SINGLE, None), None) is None:
                self._refuse_empty(source)
        missing = config.sample if config.path is None and self.inherited is None else 1
        data = self.recipe.data
        held = cleaning.held_out_texts(data)
        cleaners = cleaning.cleaners_for(data, held, self.log) if data.clean else None
        for chunk, _ in read_chunks(corpora, shard_order_seed(config.seed), SINGLE, None):
            sides = (chunk.source, chunk.target)
            if cleaners is not None:
                sides = cleaning.drop_found(sides, cleaners[chunk.corpus].check(*sides))
            yield 0, sides
            missing -= len(chunk.source)
            if missing <= 0:
                return

    def _check_stream(self, vocabulary: Vocabulary) -> None:
        """Refuse streamed corpora whose first pairs are unknown to the vocabulary."""
        options = [encode.encode_options(self.train[0].config, vocabulary)]
        limit = self.recipe.data.max_length
        row = _Encoder(self.spool, vocabulary, limit, {}, "uint32", options).encode(0)
        for side in SIDES:
            _unknown_share(self.train[0], Counter({key: row[key] for key in UNKNOWN_COUNTS}), side)

    def _refuse_empty(self, source: CorpusSource) -> None:
        advice = "see the corpus in the recipe: is it the right file?"
        raise DataError("DATA-EMPTY", source.where, "there are no pairs in it", advice)

    def _learn(self) -> Vocabulary:
        """Learn or load the vocabulary, with a tag for each target language of several."""
        config = self.recipe.vocabulary
        vocabulary = self.inherited
        if vocabulary is None:
            if config.path is None:
                self.log(f"learning a vocabulary of {config.size:,}")
            rows = learn.sample_rows(sum(self.spool.pairs), config)
            corpora = [self.recipe.languages, *(source.config.direction for source in self.train)]
            codes = [" ".join(base_code(getattr(c, side)) for c in corpora) for side in SIDES]
            source, target = (self.spool.sample(side, rows) for side in SIDES)
            languages = Languages(source=codes[0], target=codes[1])
            vocabulary = learn.learn_vocabulary(config, languages, source, target, self.monolingual)
        tagged = self.recipe.targets if vocabulary.languages else self.recipe.tagged_languages
        return vocabulary.naming([language_tag(language) for language in tagged])

    def _usual_lengths(self, vocabulary: Vocabulary) -> UsualLengths:
        pairs = sum(self.spool.pairs)
        count = min(pairs, _SAMPLED_LINES)
        lines = list(self.spool.sample("source", np.arange(count) * pairs // count))
        return usual_lengths(lines, [*map(len, vocabulary.encode_source(lines))])

    def _held_out(self, valid: list[Pair], vocabulary: Vocabulary) -> HeldOut:
        if not self.recipe.data.drop_overlap:
            return {}
        tests = [s for s in self.sources.values() if s.name.startswith("test.")]
        pairs = chain(valid, *(read_pairs(source.config) for source in tests))
        return encode.held_out_pairs(pairs, vocabulary, self.monolingual)

    def _encode_valid(
        self, corpora: dict[str, list[Pair]], vocabulary: Vocabulary, dtype: str
    ) -> dict[str, _Counts]:
        limit, counts = self.recipe.data.max_length, {name: Counter[str]() for name in corpora}
        kept: list[Pair] = []
        with Writer(self.folder, "valid", dtype, vocabulary.digest) as writer:
            for name, pairs in corpora.items():
                options = encode.encode_options(self.sources[name].config, vocabulary)
                for start in range(0, len(pairs), CHUNK_PAIRS):
                    part = pairs[start : start + CHUNK_PAIRS]
                    sources, targets = [p.source for p in part], [p.target for p in part]
                    encoded = encode.encode(sources, targets, vocabulary, limit, {}, options)
                    _write_chunk(writer, encode.to_row(encoded, dtype), counts[name])
                    kept += [p for p, why in zip(part, encoded.reasons, strict=True) if not why]
        lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in kept]
        files.write_file(self.folder / "valid.pairs.jsonl", "".join(lines))
        return counts

    def _encode_train(self, vocabulary: Vocabulary, held_out: HeldOut, dtype: str) -> list[_Counts]:
        counts = [Counter[str]() for _ in self.train]
        options = [encode.encode_options(source.config, vocabulary) for source in self.train]
        limit = self.recipe.data.max_length
        encoder = _Encoder(self.spool, vocabulary, limit, held_out, dtype, options)
        with Writer(self.folder, "train", dtype, vocabulary.digest) as writer:
            for row in self._encoded(encoder):
                _write_chunk(writer, row, counts[row["corpus"]])
        return counts

    def _encoded(self, encoder: _Encoder) -> Iterator[dict[str, Any]]:
        """Encode all chunks, in order; in several processes when there are many pairs."""
        chunks = range(len(self.spool.pairs))
        processes = min(count_processes(self.recipe.data.processes), len(chunks))
        pairs = sum(self.spool.pairs)
        self.log(f"encoding {pairs:,} pairs in {processes} processes")
        if pairs < _MIN_PARALLEL_PAIRS or processes == 1:
            yield from map(encoder.encode, chunks)
            return
        yield from (row for _, row in map_in_order(encoder.encode, chunks, processes))

    def _report(
        self, train: list[_Counts], valid: dict[str, _Counts], vocabulary: Vocabulary
    ) -> dict[str, Any]:
        """Report what was read, kept and dropped; refuse a corpus without any pair left."""
        if self.recipe.data.streaming:
            corpora = {s.name: {"kind": s.config.kind, "files": s.files} for s in self.train}
        else:
            each = zip(self.train, self.cleaned, train, strict=True)
            corpora = {
                source.name: _corpus_report(source, cleaned + counts, self.reasons)
                for source, cleaned, counts in each
            }
        corpora |= {name: _corpus_report(self.sources[name], n) for name, n in valid.items()}
        written = [name for name in ("train", "valid") if (self.folder / f"{name}.json").exists()]
        headers = {name: model_files.read_json(self.folder / f"{name}.json") for name in written}
        if "train" in headers:
            total = sum(train, Counter[str]())
            kept = total["pairs"] - _num_dropped(total)
            assert sum(self.spool.pairs) == total["pairs"], "pairs were lost"
            assert headers["train"]["pairs"] == kept, "pairs were lost"
        return {
            "format": FORMAT,
            "corpora": corpora,
            "held_out": {
                name: {"kind": source.config.kind, "files": source.files}
                for name, source in self.sources.items() if name.startswith("test.")
            },
            "usual_lengths": self._usual_lengths(vocabulary).model_dump(),
            "tokens": {name: header["tokens"] for name, header in headers.items()},
            "vocabulary": {
                name: getattr(vocabulary, name)
                for name in ("kind", "joint", "digest", "source_size", "target_size")
            },
            "seconds": self.seconds,
        }  # fmt: skip


def _write_chunk(writer: Writer, row: dict[str, Any], counts: _Counts) -> None:
    """Write an encoded chunk and count its pairs."""
    before = writer.pairs
    tokens, lengths = ({s: row[f"{s}_{part}"] for s in SIDES} for part in ("tokens", "lengths"))
    writer.append(tokens, lengths)
    new = Counter({key: row[key] for key in ("pairs", *REASONS, *UNKNOWN_COUNTS)})
    assert new["pairs"] == writer.pairs - before + _num_dropped(new), "pairs were lost"
    counts.update(new)


def _num_dropped(counts: _Counts) -> int:
    return sum(counts[reason] for reason in REASONS)


def _corpus_report(
    source: CorpusSource, counts: _Counts, reasons: Sequence[str] = REASONS
) -> dict[str, Any]:
    kept = counts["pairs"] - sum(counts[reason] for reason in reasons)
    if not kept:
        raise encode.no_pairs_error(source.where, counts, reasons)
    return {
        "kind": source.config.kind, "files": source.files, "pairs": counts["pairs"], "kept": kept,
        "dropped": {reason: counts[reason] for reason in reasons},
        "unknown": {side: _unknown_share(source, counts, side) for side in SIDES},
    }  # fmt: skip


def _unknown_share(source: CorpusSource, counts: _Counts, side: str) -> float:
    """Return the share of the pieces of a side that the vocabulary does not have.

    Raises:
        DataError: nearly all of them.
    """
    share = counts[f"{side}_unknown"] / max(1, counts[f"{side}_pieces"])
    if share > MOST_UNKNOWN:
        what = f"{share:.1%} of the {side} pieces are unknown to the vocabulary"
        advice = "is vocabulary.path a list, or a model, of this language? one word a line"
        raise DataError("DATA-UNKNOWN", source.where, what, advice)
    return round(share, 6)


def format_report(report: dict[str, Any]) -> Iterator[str]:
    """Format the report as a few lines."""
    counts = sum((Counter(c.get("dropped", {})) for c in report["corpora"].values()), Counter())
    # Of the rules of `data.clean` only those that dropped something.
    reasons = {r: max(12, len(r) + 2) for r in (*REASONS, *(+counts))}
    headings = "".join(f"{reason:>{width}}" for reason, width in reasons.items())
    headings += "".join(f"{f'unk {side}':>12}" for side in SIDES)
    yield f"{'corpus':<12}{'pairs':>12}{'kept':>12}{headings}"
    for name, corpus in report["corpora"].items():
        if "pairs" not in corpus:
            yield f"{name:<12}{'streamed':>12}"
            continue
        dropped = "".join(f"{corpus['dropped'].get(r, 0):>{w},}" for r, w in reasons.items())
        unknown = "".join(f"{corpus['unknown'][side]:>12.2%}" for side in SIDES)
        yield f"{name:<12}{corpus['pairs']:>12,}{corpus['kept']:>12,}{dropped}{unknown}"
        for side in SIDES:
            if corpus["unknown"][side] > MANY_UNKNOWN:
                what = f"{corpus['unknown'][side]:.1%} of the {side} pieces of {name} are unknown"
                yield f"mt: warning[VOCAB-UNKNOWN] {what} to the vocabulary, and become <unk>"
    sizes = {report["vocabulary"][f"{side}_size"] for side in SIDES}
    line = " and ".join(f"{size:,}" for size in sizes) + " pieces"
    tokens = report["tokens"].get("train")
    if tokens is not None:
        line += f"; {tokens['source']:,} source and {tokens['target']:,} target tokens"
    yield line
