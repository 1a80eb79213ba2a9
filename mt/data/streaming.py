"""Training corpora that are read while training, for those beyond one machine's disk or memory.

A stream is read in chunks, a chunk of each corpus in turn. Chunks are encoded and gathered into a
window, a few updates' worth of pairs in memory, and a window is planned as an epoch of a corpus
on disk is. Nothing but (epoch, where the window began, update within it) need be remembered: a
resume reads the window again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.schema import SourceConfig
from mt.data import batch_sampler
from mt.data.bucketing import PairIndices
from mt.data.corpus import SIDES, EncodedPairs, token_type
from mt.data.encode import EMPTY_CORPUS_ADVICE, REASONS, HeldOut, encode, encode_options, to_row
from mt.data.pairs import Chunk, drop_unused_side_of_chunk
from mt.data.subword_regularization import SubwordRegularizer
from mt.errors import ConfigError, DataError
from mt.interfaces import Cursor
from mt.vocabulary.vocabulary import Vocabulary

CHUNK_PAIRS = 250
"""Pairs that are read and encoded at a time, where a source has no shards of its own."""
Position = dict[str, Any]
"""Where to read on, as JSON."""


@dataclass(frozen=True)
class StreamRanks:
    """This process among those that train together, and how they speak to each other."""

    rank: int = 0
    world_size: int = 1
    agree: Callable[[bool], bool] = bool
    """Whether it is true in every process; all must call it."""
    gather: Callable[[Position], list[Position]] = lambda own: [own]
    """What each process has, by rank; all must call it."""


# ------------------------------------------------------------------------------- reading


def read_chunks(
    corpora: Sequence[SourceConfig], order: int, processes: StreamRanks, position: Position | None
) -> Iterator[tuple[Chunk, Position]]:
    """One pass over all corpora, a chunk of each in turn until it ends.

    Args:
        corpora: what to read.
        order: decides the order of shards; at least 1.
        processes: who reads which share.
        position: where to begin, as this function yields it; None: at the beginning.

    Yields:
        Each chunk, and the position after it.

    Raises:
        DataError, DownloadError: while iterating: a shard cannot be read; names it.
    """
    position = position or {"turn": 0, "corpora": [{"after": None, "ended": False}] * len(corpora)}
    places, turn = [dict(place) for place in position["corpora"]], position["turn"]
    opened = [
        _open_stream(config, order, processes, place["after"])
        for config, place in zip(corpora, places, strict=True)
    ]
    while not all(place["ended"] for place in places):
        number, turn = turn, (turn + 1) % len(corpora)
        if places[number]["ended"]:
            continue
        chunk = next(opened[number], None)
        if chunk is None:
            places[number] = {"after": None, "ended": True}
        else:
            places[number] = {"after": chunk.after, "ended": False}
            chunk = replace(drop_unused_side_of_chunk(chunk, corpora[number]), corpus=number)
            yield chunk, {"turn": turn, "corpora": [dict(place) for place in places]}


def _open_stream(
    config: SourceConfig, order: int, processes: StreamRanks, position: Position | None
) -> Iterator[Chunk]:
    source = plugin("sources", config.kind)
    stream = source.stream if hasattr(source, "stream") else _unsharded
    chunks: Iterator[Chunk] = stream(
        config, order, processes.rank, processes.world_size, position
    )  # fmt: skip
    return chunks


def _unsharded(
    config: SourceConfig, order: int, rank: int, world_size: int, position: Position | None
) -> Iterator[Chunk]:
    """A source without shards: every `world_size`-th pair, those before the position skipped."""
    start: int = position["pairs"] if position else 0
    pairs = islice(plugin("sources", config.kind).read(config), start + rank, None, world_size)
    while part := list(islice(pairs, CHUNK_PAIRS)):
        start += len(part) * world_size
        yield Chunk([p.source for p in part], [p.target for p in part], {"pairs": start})


def shard_order_seed(*parts: int) -> int:
    """A number, at least 1, for a seed and what else shall choose an order."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) | 1


def position_figures(position: Position | None) -> dict[str, int]:
    """What a report says of a position in a stream: what was read before its window."""
    if position is None:
        return {}
    counts: Counter[str] = Counter(position["counts"])
    dropped = sum(counts[reason] for reason in REASONS)
    return {"pairs_read": counts["pairs"], "pairs_dropped": dropped}


# ------------------------------------------------------------------------------- windows


class Window(EncodedPairs):
    """Encoded pairs in memory.

    Args:
        rows: chunks as `encoding.as_row` makes them.
        dtype: of their tokens.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], dtype: str) -> None:
        arrays = []
        for side in SIDES:
            lengths = np.frombuffer(b"".join(row[f"{side}_lengths"] for row in rows), np.int32)
            tokens = np.frombuffer(b"".join(row[f"{side}_tokens"] for row in rows), dtype)
            arrays += [tokens, np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))]
        super().__init__(*arrays)


class _PlannedUpdate(NamedTuple):
    """An update that can be made: its pairs, its micro-batches, and its own position."""

    window: EncodedPairs
    micros: list[PairIndices]
    at: Position


class Stream:
    """Where the updates of a streaming run come from.

    Args:
        recipe: its `data.train` is read, as `training.seed`, `batching` and `data` say.
        known: the vocabulary that encodes.
        held: pairs that training must not see.
        micro_tokens: padded slots of one forward pass.
        processes: this process, which reads its share; others read the rest.
        log: where a line about each epoch goes.
        redraw: re-segments each window, for subword regularisation.
    """

    def __init__(
        self, recipe: Recipe, known: Vocabulary, held: HeldOut, micro_tokens: int,
        processes: StreamRanks, log: Callable[[str], None],
        redraw: SubwordRegularizer | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.known, self.held, self.log = recipe, known, held, log
        self.redraw = redraw
        self.micro_tokens, self.processes = micro_tokens, processes
        self.tokens = max(1, recipe.batching.tokens // processes.world_size)
        """Target tokens of an update that are this process's."""
        self.window: EncodedPairs = Window((), "uint16")
        """What holds the pairs of the update that was yielded last."""
        self.counts: Counter[str] = Counter()
        """Pairs read since the run began, and those dropped for each reason."""

    def updates(self, cursor: Cursor) -> Iterator[tuple[list[PairIndices], Cursor]]:
        """Yield the micro-batches of each update from `cursor` on, and the cursor after it.

        An epoch ends, for all ranks, where the first of them can fill no further update.

        Raises:
            DataError, DownloadError: a shard cannot be read, or nothing in it can be used.
        """
        epoch, made, at = cursor.epoch, cursor.update, cursor.stream or self._beginning()
        while True:
            coming = self._epoch(epoch, at)
            now = next(coming, None)
            if not self.processes.agree(now is not None):
                raise self._nothing()
            while now is not None:
                following = next(coming, None)
                more = self.processes.agree(following is not None)
                made += 1
                at = following.at if more and following else self._beginning()
                self.window = now.window
                place = (epoch, made) if more else (epoch + 1, 0)
                yield now.micros, Cursor(epoch=place[0], update=place[1], stream=at)
                now = following if more else None
            self._tell(epoch)
            epoch, made = epoch + 1, 0

    def gather(self, position: Position | None) -> Position:
        """The positions of all ranks, as a checkpoint keeps them."""
        return {"ranks": self.processes.gather(position or {})}

    def own_position(self, gathered: Position | None) -> Position:
        """The position of this rank in what a checkpoint keeps.

        Raises:
            ConfigError: the checkpoint was written by another number of processes.
        """
        assert gathered is not None, "check_recipe has verified that the run streamed before"
        ranks: list[Position] = gathered["ranks"]
        now = self.processes.world_size
        if len(ranks) != now:
            what = f"a stream was left by {len(ranks)} processes, and there are {now}"
            advice = f"resume it with {len(ranks)}, or start over with --fresh"
            raise ConfigError("RESUME-PROCESSES", "data.streaming", what, advice)
        return ranks[self.processes.rank]

    def _beginning(self) -> Position:
        return {"window": 0, "update": 0, "begin": None, "counts": dict(self.counts)}

    def _epoch(self, epoch: int, at: Position) -> Iterator[_PlannedUpdate]:
        """The updates of this process from a position in an epoch on."""
        self.counts = Counter(at["counts"])
        number, first, begin, before = at["window"], at["update"], at["begin"], at["counts"]
        order = shard_order_seed(self.recipe.training.seed, epoch)
        chunks = read_chunks(self.recipe.data.train, order, self.processes, begin)
        for read_window, after in self._windows(chunks):
            window = self._cut(read_window, epoch, number)
            for update, micros in enumerate(self._planned(window, epoch, number)):
                if update >= first:
                    position = {
                        "window": number,
                        "update": update,
                        "begin": begin,
                        "counts": before,
                    }
                    yield _PlannedUpdate(window, micros, position)
            number, first, begin, before = number + 1, 0, after, dict(self.counts)

    def _windows(
        self, chunks: Iterator[tuple[Chunk, Position]]
    ) -> Iterator[tuple[Window, Position]]:
        """Windows of about `batching.window` updates, each with the position after it."""
        dtype, wanted = token_type(self.known.size), self.recipe.batching.window * self.tokens
        how = [encode_options(config, self.known) for config in self.recipe.data.train]
        rows: list[dict[str, Any]] = []
        tokens, after = 0, Position()
        for chunk, after in chunks:
            encoded = encode(
                chunk.source, chunk.target, self.known, self.recipe.data.max_length, self.held,
                how[chunk.corpus],
            )  # fmt: skip
            row = to_row(encoded, dtype)
            self.counts.update({reason: row[reason] for reason in ("pairs", *REASONS)})
            rows += [row] if encoded.target else []
            tokens += sum(map(len, encoded.target)) + len(encoded.target)  # each with its `</s>`
            if tokens >= wanted:
                yield Window(rows, dtype), after
                rows, tokens = [], 0
        if tokens:
            yield Window(rows, dtype), after

    def _cut(self, window: EncodedPairs, epoch: int, number: int) -> EncodedPairs:
        """A window as this epoch sees it."""
        if self.redraw is None:
            return window
        return self.redraw(
            window, self.recipe.training.seed, epoch, self.processes.rank + 1, number
        )  # fmt: skip

    def _planned(self, window: EncodedPairs, epoch: int, number: int) -> list[list[PairIndices]]:
        """The updates of a window, planned as a small epoch."""
        everything = {"tokens": self.tokens, "window": len(window.target_lengths)}
        plan = batch_sampler.EpochPlan(
            window.source_lengths, window.target_lengths,
            self.recipe.batching.model_copy(update=everything), self.micro_tokens,
            shard_order_seed(self.recipe.training.seed, epoch, self.processes.rank), number,
        )  # fmt: skip
        return [update for part in range(len(plan.windows)) for update in plan.updates(part)]

    def _nothing(self) -> DataError:
        read, worst = self.counts["pairs"], max(REASONS, key=lambda reason: self.counts[reason])
        if self.counts[worst]:
            what = f"none of {read} pairs is left; {self.counts[worst]} dropped as {worst}"
            return DataError("DATA-EMPTY", "data.train", what, EMPTY_CORPUS_ADVICE[worst])
        what = f"too few pairs for {self.processes.world_size} processes"
        return DataError("DATA-EMPTY", "data.train", what, "train on more text, or with fewer")

    def _tell(self, epoch: int) -> None:
        dropped = ", ".join(f"{self.counts[reason]:,} {reason}" for reason in REASONS)
        read = self.counts["pairs"]
        self.log(f"end of epoch {epoch + 1}: {read:,} pairs read so far; dropped: {dropped}")
