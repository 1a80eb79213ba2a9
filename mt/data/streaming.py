"""Training corpora that are read while training, for those larger than the disk.

A stream is read in chunks, a chunk of each corpus in turn. Encoded chunks form a window in memory,
the pairs of a few updates, which is planned like an epoch of a prepared corpus. A resume reads
the current window again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, cast

import numpy as np

from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.schema import SourceConfig
from mt.data import batch_sampler, cleaning
from mt.data.bucketing import PairIndices
from mt.data.corpus import SIDES, EncodedPairs, token_type
from mt.data.encode import REASONS, HeldOut, encode, encode_options, no_pairs_error, to_row
from mt.data.epoch_variation import EpochVariation
from mt.data.pairs import Chunk, drop_unused_side
from mt.errors import ConfigError, DataError
from mt.interfaces import Cursor
from mt.runtime import distributed
from mt.runtime.distributed import World
from mt.vocabulary.vocabulary import Vocabulary

CHUNK_PAIRS = 250
"""Pairs that are read and encoded at a time, where a source has no shards of its own."""
Position = dict[str, Any]
"""Where to read on, as JSON."""


# ------------------------------------------------------------------------------- reading


def read_chunks(
    corpora: Sequence[SourceConfig], order: int, world: World, position: Position | None
) -> Iterator[tuple[Chunk, Position]]:
    """Read a chunk of each corpus in turn; yield each chunk and the position after it.

    `order`, at least 1, decides the order of shards.

    Raises:
        DataError, DownloadError: while iterating: a shard cannot be read; names it.
    """
    position = position or {"turn": 0, "corpora": [{"after": None, "ended": False}] * len(corpora)}
    places, turn = [dict(place) for place in position["corpora"]], position["turn"]
    streams = [
        _open_stream(config, order, world, place["after"])
        for config, place in zip(corpora, places, strict=True)
    ]
    while not all(place["ended"] for place in places):
        number, turn = turn, (turn + 1) % len(corpora)
        if places[number]["ended"]:
            continue
        chunk = next(streams[number], None)
        if chunk is None:
            places[number] = {"after": None, "ended": True}
        else:
            places[number] = {"after": chunk.after, "ended": False}
            chunk = replace(drop_unused_side(chunk, corpora[number]), corpus=number)
            yield chunk, {"turn": turn, "corpora": [dict(place) for place in places]}


def _open_stream(
    config: SourceConfig, order: int, world: World, position: Position | None
) -> Iterator[Chunk]:
    stream = getattr(plugin("sources", config.kind), "stream", _stream_unsharded)
    return cast(Iterator[Chunk], stream(config, order, world.rank, world.size, position))


def _stream_unsharded(
    config: SourceConfig, order: int, rank: int, world_size: int, position: Position | None
) -> Iterator[Chunk]:
    """Read every `world_size`-th pair of a source without shards, after those of the position."""
    start: int = position["pairs"] if position else 0
    pairs = islice(plugin("sources", config.kind).read(config), start + rank, None, world_size)
    while part := list(islice(pairs, CHUNK_PAIRS)):
        start += len(part) * world_size
        yield Chunk([p.source for p in part], [p.target for p in part], {"pairs": start})


def shard_order_seed(*parts: int) -> int:
    """Derive a number, at least 1, from a seed and other numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) | 1


def position_figures(position: Position | None) -> dict[str, int]:
    """Return the pairs that were read and dropped before the window of a position, for reports."""
    if position is None:
        return {}
    counts: Counter[str] = Counter(position["counts"])
    dropped = counts.total() - counts["pairs"]
    return {"pairs_read": counts["pairs"], "pairs_dropped": dropped}


# ------------------------------------------------------------------------------- windows


class Window(EncodedPairs):
    """Encoded pairs in memory, from the rows of `encode.to_row`."""

    def __init__(self, rows: Sequence[dict[str, Any]], dtype: str) -> None:
        arrays = []
        for side in SIDES:
            lengths = np.frombuffer(b"".join(row[f"{side}_lengths"] for row in rows), np.int32)
            tokens = np.frombuffer(b"".join(row[f"{side}_tokens"] for row in rows), dtype)
            arrays += [tokens, np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))]
        super().__init__(*arrays)


class _PlannedUpdate(NamedTuple):
    """An update of this rank: its pairs, its micro-batches, and its position."""

    window: EncodedPairs
    micro_batches: list[PairIndices]
    at: Position


class Stream:
    """The updates of a streaming run; each rank reads its share of `data.train`."""

    def __init__(
        self, recipe: Recipe, vocabulary: Vocabulary, held_out: HeldOut, micro_tokens: int,
        world: World, log: Callable[[str], None],
        variation: EpochVariation | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.vocabulary, self.held_out, self.log = recipe, vocabulary, held_out, log
        self.variation, self.micro_tokens, self.world = variation, micro_tokens, world
        self.tokens = max(1, recipe.batching.tokens // world.size)
        """Target tokens of an update on this rank."""
        self.window: EncodedPairs = Window((), "uint16")
        """The pairs of the update that was yielded last."""
        data = recipe.data
        self.reasons = tuple(dict.fromkeys((*REASONS, *(rule.label for rule in data.clean))))
        """Why pairs may be dropped."""
        held = cleaning.held_out_texts(data)
        self.cleaners = cleaning.cleaners_for(data, held, log) if data.clean else None
        self.counts: Counter[str] = Counter()
        """Pairs read since the run began, and those dropped for each reason."""

    def updates(self, cursor: Cursor) -> Iterator[tuple[list[PairIndices], Cursor]]:
        """Yield the micro-batches of each update from `cursor` on, and the cursor after it.

        An epoch ends, for all ranks, where the first of them can fill no further update.

        Raises:
            DataError, DownloadError: a shard cannot be read, or nothing in it can be used.
        """
        epoch, number, at = cursor.epoch, cursor.update, cursor.stream or self._beginning()
        while True:
            planned = self._epoch(epoch, at)
            update = next(planned, None)
            if not self._all_have(update):
                raise self._empty_error()
            while update is not None:
                following = next(planned, None)
                more = self._all_have(following)
                number += 1
                at = following.at if more and following else self._beginning()
                self.window = update.window
                after = Cursor(epoch, update=number) if more else Cursor(epoch + 1)
                yield update.micro_batches, replace(after, stream=at)
                update = following if more else None
            self._log_epoch(epoch)
            epoch, number = epoch + 1, 0

    def _all_have(self, update: _PlannedUpdate | None) -> bool:
        """Whether no rank is at the end of its epoch; all must call this."""
        return not distributed.all_reduce_max(self.world, update is None)[0]

    def gather(self, position: Position | None) -> Position:
        """Return the positions of all ranks, for a checkpoint."""
        return {"ranks": distributed.all_gather_json(self.world, position or {})}

    def own_position(self, gathered: Position | None) -> Position:
        """Return the position of this rank; a ConfigError if the number of processes differs."""
        assert gathered is not None, "check_recipe has verified that the run streamed before"
        positions: list[Position] = gathered["ranks"]
        before, now = len(positions), self.world.size
        if before != now:
            what = f"a stream was left by {before} processes, and there are {now}"
            advice = f"resume it with {before}, or start over with --fresh"
            raise ConfigError("RESUME-PROCESSES", "data.streaming", what, advice)
        return positions[self.world.rank]

    def _beginning(self) -> Position:
        return {"window": 0, "update": 0, "begin": None, "counts": dict(self.counts)}

    def _epoch(self, epoch: int, at: Position) -> Iterator[_PlannedUpdate]:
        """Yield the updates of this rank from a position in an epoch on."""
        self.counts = Counter(at["counts"])
        number, first, begin, before = at["window"], at["update"], at["begin"], at["counts"]
        seed = self.recipe.training.seed
        order = shard_order_seed(seed, epoch)
        window: EncodedPairs
        chunks = read_chunks(self.recipe.data.train, order, self.world, begin)
        for window, after in self._windows(chunks):
            if self.variation:
                window = self.variation(window, seed, epoch, self.world.rank + 1, number)
            for update, micro_batches in enumerate(self._plan_updates(window, epoch, number)):
                if update >= first:
                    at = {"window": number, "update": update, "begin": begin, "counts": before}
                    yield _PlannedUpdate(window, micro_batches, at)
            number, first, begin, before = number + 1, 0, after, dict(self.counts)

    def _windows(
        self, chunks: Iterator[tuple[Chunk, Position]]
    ) -> Iterator[tuple[Window, Position]]:
        """Yield windows of about `batching.window` updates, each with the position after it."""
        dtype, size = token_type(self.vocabulary.size), self.recipe.batching.window * self.tokens
        options = [encode_options(config, self.vocabulary) for config in self.recipe.data.train]
        rows: list[dict[str, Any]] = []
        tokens, after = 0, Position()
        for chunk, after in chunks:
            source, target = self._clean(chunk)
            encoded = encode(
                source, target, self.vocabulary, self.recipe.data.max_length,
                self.held_out, options[chunk.corpus],
            )  # fmt: skip
            row = to_row(encoded, dtype)
            self.counts.update({reason: row[reason] for reason in ("pairs", *REASONS)})
            rows += [row] if encoded.target else []
            tokens += sum(map(len, encoded.target)) + len(encoded.target)  # each with its `</s>`
            if tokens >= size:
                yield Window(rows, dtype), after
                rows, tokens = [], 0
        if tokens:
            yield Window(rows, dtype), after

    def _clean(self, chunk: Chunk) -> tuple[list[str | None], list[str | None]]:
        """Drop and count the pairs of a chunk that the rules of `data.clean` find."""
        sides = chunk.source, chunk.target
        if self.cleaners is None:
            return sides
        findings = self.cleaners[chunk.corpus].check(*sides)
        left = cleaning.drop_found(sides, findings)
        self.counts.update(finding.rule for finding in findings if finding)
        self.counts["pairs"] += len(findings) - len(left[0])
        return left

    def _plan_updates(
        self, window: EncodedPairs, epoch: int, number: int
    ) -> list[list[PairIndices]]:
        """Plan the updates of a window like a small epoch."""
        one_window = {"tokens": self.tokens, "window": len(window.target_lengths)}
        plan = batch_sampler.EpochPlan(
            window.source_lengths, window.target_lengths,
            self.recipe.batching.model_copy(update=one_window), self.micro_tokens,
            shard_order_seed(self.recipe.training.seed, epoch, self.world.rank), number,
        )  # fmt: skip
        return [update for part in range(len(plan.windows)) for update in plan.updates(part)]

    def _empty_error(self) -> DataError:
        if any(self.counts[reason] for reason in self.reasons):
            return no_pairs_error("data.train", self.counts, self.reasons)
        what = f"too few pairs for {self.world.size} processes"
        return DataError("DATA-EMPTY", "data.train", what, "train on more text, or with fewer")

    def _log_epoch(self, epoch: int) -> None:
        dropped = ", ".join(f"{self.counts[reason]:,} {reason}" for reason in self.reasons)
        read = self.counts["pairs"]
        self.log(f"end of epoch {epoch + 1}: {read:,} pairs read so far; dropped: {dropped}")
