"""The native engine: a trained run in torch, behind lines in and lines out.

Lines are read in windows, sorted by length, searched in batches of `batch_tokens` padded
source positions times beams, and given back in their order.

Legend: B sentences, N beams, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from mt import checkpoint, distributed, report
from mt.batching import batch_of, moved, pad
from mt.config import Document, Location, Plugin, Section, plugin, validate
from mt.contracts import (
    END,
    Batch,
    Cache,
    Engine,
    EngineOptions,
    Hypotheses,
    Memory,
    Pair,
    Request,
    Score,
    Search,
    SearchConfig,
    Seq2Seq,
    Translation,
)
from mt.errors import ConfigError, DataError, ModelError
from mt.lines import batches, is_blank, joined, space_between, split_sentences, windows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mt.recipe import Recipe
    from mt.vocabulary import Vocabulary

CHUNK = 512
"""Positions whose logits are held at one time when scoring."""


def accepts(path: Path) -> bool:
    """Whether a run directory, or a checkpoint folder in one, lies at `path`."""
    return checkpoint.is_run(path)


def open(path: Path, options: EngineOptions) -> Engine:
    """The engine of a run: its best checkpoint, or the one that is asked for.

    Raises:
        ModelError: no such checkpoint, a damaged one, or weights of another model.
        MachineError: the device is not there.
    """
    opened = checkpoint.open_run(path, options.checkpoint)
    device = distributed.pick_device(options.device or "auto")
    distributed.use_threads(options.threads or "auto")
    recipe = opened.recipe
    model = plugin("models", recipe.model.kind).build(recipe.model, opened.vocabulary)
    checkpoint.fit(model, checkpoint.load_weights(opened.folder), opened.folder)
    precision = options.precision
    if precision in (None, "auto"):  # what training found fastest on a CPU is not so here
        precision = opened.resolved["precision"] if device.type == "cuda" else "fp32"
    return NativeEngine(
        model.to(device), opened.vocabulary, recipe, device,
        cast(distributed.Precision, precision), options,
    )  # fmt: skip


def native_engine(
    model: nn.Module, vocabulary: Vocabulary, recipe: Recipe, device: torch.device,
    precision: distributed.Precision,
) -> Engine:  # fmt: skip
    """The engine of a model that is already on its device, as validation needs it."""
    return NativeEngine(model, vocabulary, recipe, device, precision, EngineOptions())


# ---------------------------------------------------------------------------- the decoder


@dataclass
class _State:
    memory: Memory
    cache: Cache


class ModelDecoder:
    """What a search sees of one model; see `mt.contracts.Decoder`."""

    def __init__(self, model: Seq2Seq) -> None:
        self.model = model

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> _State:
        """Encode source ids [B, S] and make room for the longest hypothesis."""
        memory = self.model.encode(source)
        return _State(memory, self.model.start(memory, beams, int(max_lengths.max())))

    def step(self, state: _State, tokens: Tensor) -> Tensor:
        """Logits [B, N, V] after feeding tokens [B, N]."""
        from torch.nn import functional as F

        rows = tokens.reshape(-1, 1)  # [B*N, 1]
        hidden = self.model.decode(rows, state.memory, state.cache)  # [B*N, 1, D]
        return F.linear(hidden[:, 0], *self.model.output()).view(*tokens.shape, -1)

    def reorder(self, state: _State, beams: Tensor) -> None:
        """Beam n of sentence b continues what beam `beams[b, n]` was; beams [B, N]."""
        import torch

        first = torch.arange(len(beams), device=beams.device) * beams.shape[1]  # [B]
        state.cache.reorder((beams + first[:, None]).flatten())  # [B*N]

    def keep(self, state: _State, sentences: Tensor) -> None:
        """Keep only these sentences [B']."""
        state.memory = Memory(state.memory.states[sentences], state.memory.valid[sentences])
        state.cache.keep(sentences)


# ----------------------------------------------------------------------------- the engine


class NativeEngine:
    """Translates with one model; see `mt.contracts.Engine`."""

    def __init__(
        self, model: nn.Module, vocabulary: Vocabulary, recipe: Recipe, device: torch.device,
        precision: distributed.Precision, options: EngineOptions,
    ) -> None:  # fmt: skip
        self.model, self.vocabulary, self.recipe = model, vocabulary, recipe
        self.device, self.precision, self.options = device, precision, options
        self.longest = recipe.data.max_length  # pieces of a side, end included
        self.space = space_between(recipe.languages.target)
        search_config(recipe.search, options.search)  # a wrong setting is told at once

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order, lazily."""
        options = options or self.options
        job = _Job(self, options)
        for window in windows(lines):
            yield from job.translate(window)
        tell_long(job.long, self.longest - 1)

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target; what is too long is cut, with a warning."""
        long: list[int] = []
        first = 1
        for window in windows(pairs):
            yield from self._score(window, long, first)
            first += len(window)
        tell_long(long, self.longest - 1)

    def _score(self, window: Sequence[Pair], long: list[int], first: int) -> list[Score]:
        import numpy as np

        for pair in window:
            if pair.source is None or pair.target is None:
                advice = "give pairs of a source and a target"
                raise DataError("SCORE-SIDE", pair.origin, "a side is missing", advice)
        sources = self.vocabulary.encode_source([cast(str, pair.source) for pair in window])
        targets = self.vocabulary.encode_target([cast(str, pair.target) for pair in window])
        lengths = [max(len(s), len(t)) + 1 for s, t in zip(sources, targets, strict=True)]
        long += [first + i for i, length in enumerate(lengths) if length > self.longest]
        cut = slice(self.longest - 1)
        found: dict[int, Score] = {}
        for rows in batches([min(n, self.longest) for n in lengths], self.options.batch_tokens):
            batch = batch_of(
                [np.array([*sources[row][cut], END]) for row in rows],
                [np.array([*targets[row][cut], END]) for row in rows],
                np.array(rows),
            )
            gains = self._forced(moved(batch, self.device))
            for row, each in zip(rows, gains, strict=True):
                found[row] = Score(math.fsum(each), len(each), tuple(each))
        return [found[row] for row in range(len(window))]

    def _forced(self, batch: Batch) -> list[list[float]]:
        """The log-probability of each label of each sentence."""
        from torch.nn import functional as F

        model = cast(Seq2Seq, self.model)
        with self.inference():
            real = batch.labels != 0  # [B, T]
            hidden = model.decode(batch.inputs, model.encode(batch.source))[real]  # [P, D]
            gains: list[float] = []
            labels = batch.labels[real][:, None]  # [P, 1]
            for start in range(0, len(hidden), CHUNK):
                part = slice(start, start + CHUNK)
                logits = F.linear(hidden[part], *model.output()).float()  # [CHUNK, V]
                chosen = logits.gather(1, labels[part])[:, 0] - logits.logsumexp(dim=1)
                gains += chosen.tolist()
        every = iter(gains)
        return [list(islice(every, count)) for count in real.sum(dim=1).tolist()]

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode, no gradients, matrix products in the engine's precision."""
        import torch

        training = self.model.training
        if training:
            self.model.eval()
        try:
            with torch.inference_mode(), distributed.autocast(self.device, self.precision):
                yield
        finally:
            if training:
                self.model.train()


class _Job:
    """One call of `translate`: its search, its place in the stream, what was too long."""

    def __init__(self, engine: NativeEngine, options: EngineOptions) -> None:
        refuse(options, engine.recipe)
        self.engine, self.options = engine, options
        self.config = search_config(engine.recipe.search, options.search)
        self.search: Search = plugin("search", self.config.kind).build(self.config)
        self.read, self.long = 0, list[int]()

    def translate(self, window: Sequence[str]) -> Iterator[Translation]:
        """The translations of a window of lines, in order."""
        lines, pieces = self._parts(window)
        self.read += len(window)
        budget = self.options.batch_tokens // getattr(self.config, "beams", 1)
        found: dict[int, Translation] = {}
        for rows in batches([len(ids) + 1 for ids in pieces], budget):
            found.update(zip(rows, self._batch([pieces[row] for row in rows]), strict=True))
        parts: list[list[Translation]] = [[] for _ in window]
        for row, line in enumerate(lines):
            parts[line].append(found[row])
        for each in parts:
            yield each[0] if len(each) == 1 else joined(each, self.engine.space)

    def _parts(self, window: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """What is to be translated: for each part its line in the window, and its pieces."""
        wanted = [i for i, line in enumerate(window) if not is_blank(line)]
        encoded = self.engine.vocabulary.encode_source([window[i] for i in wanted])
        lines, pieces = list[int](), list[list[int]]()
        for i, ids in zip(wanted, encoded, strict=True):
            parts = [ids]
            if len(ids) >= self.engine.longest:
                parts = self._split(window[i])
                self.long.append(self.read + i + 1)
            for part in filter(None, parts):
                lines.append(i)
                pieces.append(part)
        return lines, pieces

    def _split(self, line: str) -> list[list[int]]:
        """The pieces of a line as parts that fit, each of as many sentences as fit."""
        encode, room = self.engine.vocabulary.encode_source, self.engine.longest - 1
        sentences = split_sentences(line)
        parts: list[str] = []
        length = room + 1  # of the last part, so that the first sentence begins one
        for text, ids in zip(sentences, encode(sentences), strict=True):
            if length + len(ids) <= room:
                parts[-1] += text
                length += len(ids)
            else:
                parts.append(text)
                length = len(ids)
        return [ids[:room] for ids in encode(parts)]

    def _batch(self, pieces: Sequence[Sequence[int]]) -> list[Translation]:
        """Search the translations of sources, each given as its pieces."""
        import numpy as np
        import torch

        config, engine = self.config, self.engine
        source = pad([np.array([*ids, END]) for ids in pieces])
        known = getattr(engine.recipe.model, "max_length", None) or 1 << 30
        lengths = [
            min(int(config.max_length_ratio * len(ids)) + config.max_length_extra + 1, known)
            for ids in pieces
        ]
        with engine.inference():
            request = Request(
                source=torch.from_numpy(source).to(engine.device),
                max_lengths=torch.tensor(lengths, device=engine.device),
                n_best=self.options.n_best,
                seed=self.options.seed,
                vocabulary=engine.vocabulary,
            )
            found = self.search(ModelDecoder(cast(Seq2Seq, engine.model)), request)
        if not bool(found.scores[:, 0].isfinite().all()):
            what = "the model's probabilities are not numbers"
            advice = "its training diverged; choose another checkpoint with --checkpoint"
            raise ModelError("MODEL-NAN", "the model", what, advice)
        return self._told(found)

    def _told(self, found: Hypotheses) -> list[Translation]:
        """Hypotheses as text; of a sentence the best one, the others within it."""
        vocabulary = self.engine.vocabulary
        every = zip(found.tokens.tolist(), found.scores.tolist(), strict=True)
        gains: list[list[list[float]]] = found.log_probabilities.tolist()
        result = []
        for (tokens, scores), likely in zip(every, gains, strict=True):
            texts = vocabulary.decode_target(tokens)
            nbest = [
                translation(vocabulary, ids, text, score, likely[n])
                for n, (ids, text, score) in enumerate(zip(tokens, texts, scores, strict=True))
                if score > -math.inf
            ]
            best = nbest[0]
            if self.options.n_best > 1:
                best = Translation(
                    best.text, best.score, best.tokens, best.log_probabilities, tuple(nbest)
                )
            result.append(best)
        return result


def translation(
    vocabulary: Vocabulary, ids: Sequence[int], text: str, score: float, gains: Sequence[float]
) -> Translation:
    """One hypothesis; what would end a line in its text becomes a space."""
    end = ids.index(END)
    return Translation(
        text=text.replace("\n", " ").replace("\r", " "),
        score=score,
        tokens=tuple(vocabulary.pieces_target(ids[:end])),
        log_probabilities=tuple(gains[: end + 1]),
    )


def tell_long(lines: Sequence[int], pieces: int) -> None:
    """Warn once of all lines that were too long for the model."""
    if lines:
        named = ", ".join(map(str, lines[:10])) + (", ..." if len(lines) > 10 else "")
        report.say(
            f"mt: warning[LINE-LONG] {len(lines)} lines of more than {pieces} pieces were split "
            f"at sentence ends, or cut where there are none: lines {named}"
        )


# ------------------------------------------------------------------------------- settings


class _Settings(Section):
    """Wraps the search section, so that problems are told with their whole key."""

    search: Annotated[SearchConfig, Plugin("search")]


def search_config(own: SearchConfig, settings: Any) -> SearchConfig:
    """The recipe's search with `settings` replaced; of another kind, with its own defaults.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    kept = own.model_dump(mode="json")
    if settings.get("kind", own.kind) != own.kind:
        kept = {key: kept[key] for key in SearchConfig.model_fields}
    said: dict[Location, str] = {
        ("search", key): f"--set search.{key}={value}" for key, value in settings.items()
    }
    said["search",] = said.get(("search", "kind"), "--set")
    document = Document({"search": {**kept, **settings}}, said, name="--set")
    return validate(_Settings, document).search


def refuse(options: EngineOptions, recipe: Recipe) -> None:
    """Say what this engine cannot do yet.

    Raises:
        ConfigError: it is asked for.
    """
    target = recipe.languages.target
    for asked, what in (
        (options.prefixes is not None, "target prefixes cannot be forced yet"),
        (options.alignments, "alignments are not given yet"),
        (
            options.target_language not in (None, target),
            f"this model translates to {target}, not to {options.target_language}",
        ),
    ):
        if asked:
            raise ConfigError("ENGINE", "translate", what, "translate without")
