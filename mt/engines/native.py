"""The native engine: a trained run in torch.

Sentences are sorted by length and searched in batches of `batch_tokens` padded source positions
times beams.

Legend: B sentences, N beams, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mt import bundle, checkpoint, distributed
from mt.batching import batch_of, moved, pad
from mt.config import plugin
from mt.contracts import (
    BEGIN,
    END,
    Batch,
    Cache,
    Engine,
    EngineOptions,
    Hypotheses,
    Hypothesis,
    Memory,
    Request,
    Search,
    SearchConfig,
    Sentence,
    Seq2Seq,
)
from mt.errors import ModelError
from mt.lines import batches
from mt.text_engine import Profile, TextEngine

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mt.recipe import Recipe
    from mt.vocabulary import Vocabulary

CHUNK = 512
"""Positions whose logits are held at one time when scoring."""
SCORED = 4096
"""Padded positions of one batch when scoring."""


def accepts(path: Path) -> bool:
    """Whether a run directory, a checkpoint folder in one, or a bundle lies at `path`."""
    return checkpoint.is_run(path) or bundle.is_bundle(path)


def open(path: Path, options: EngineOptions) -> Engine:
    """The engine of a run, its best checkpoint or the one that is asked for, or of a bundle.

    Raises:
        ModelError: no such checkpoint, a damaged one, or weights of another model.
        MachineError: the device is not there.
    """
    opened = bundle.open_model(path, options.checkpoint)
    device = distributed.pick_device(options.device or "auto")
    distributed.use_threads(options.threads or "auto")
    recipe = opened.recipe
    model = opened.model()
    precision = options.precision
    if precision in (None, "auto"):  # what training found fastest on a CPU is not so here
        precision = opened.resolved["precision"] if device.type == "cuda" else "fp32"
    precision = cast(distributed.Precision, precision)
    return native_engine(model.to(device), opened.vocabulary, recipe, device, precision, options)


def native_engine(
    model: nn.Module, vocabulary: Vocabulary, recipe: Recipe, device: torch.device,
    precision: distributed.Precision, options: EngineOptions | None = None,
) -> TextEngine:  # fmt: skip
    """The engine of a model that is already on its device, as validation needs it."""
    profile = Profile(
        languages=recipe.languages,
        longest=recipe.data.max_length,
        positions=getattr(recipe.model, "max_length", None),
        search=recipe.search,
    )
    searcher = NativeSearcher(model, vocabulary, device, precision)
    return TextEngine(searcher, vocabulary, profile, options or EngineOptions())


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

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Attention [B, N, T, S] over the source; the mean of the heads of one layer."""
        import torch

        begin = torch.full_like(tokens[..., :1], BEGIN)
        inputs = torch.cat((begin, tokens[..., :-1]), dim=-1)  # [B, N, T]
        rows = source.repeat_interleave(inputs.size(1), dim=0)  # [B*N, S]
        attention = self.model.attention(rows, inputs.flatten(0, 1))  # [B*N, T, S]
        return attention.unflatten(0, inputs.shape[:2])


# ---------------------------------------------------------------------------- the searcher


class NativeSearcher:
    """Searches with one model, or several, in this process; see `mt.contracts.Searcher`."""

    ahead = 0

    def __init__(
        self, model: nn.Module, vocabulary: Vocabulary, device: torch.device,
        precision: distributed.Precision,
    ) -> None:  # fmt: skip
        self.model, self.vocabulary = model, vocabulary
        self.device, self.precision = device, precision

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each sentence, in order."""
        search: Search = plugin("search", config.kind).build(config)
        budget = options.batch_tokens // getattr(config, "beams", 1)
        found: dict[int, list[Hypothesis]] = {}
        for rows in batches([len(each.source) for each in sentences], budget):
            batch = [sentences[row] for row in rows]
            found.update(zip(rows, self._batch(search, batch, options), strict=True))
        return (found.pop(row) for row in range(len(sentences)))

    def _batch(
        self, search: Search, sentences: Sequence[Sentence], options: EngineOptions
    ) -> list[list[Hypothesis]]:
        import numpy as np
        import torch

        source = torch.from_numpy(pad([np.array(each.source) for each in sentences]))
        prefixes = [each.prefix for each in sentences]
        decoder = ModelDecoder(cast(Seq2Seq, self.model))
        with self.inference():
            request = Request(
                source=source.to(self.device),
                max_lengths=torch.tensor([e.max_length for e in sentences], device=self.device),
                prefixes=prefixes if any(prefixes) else None,
                n_best=options.n_best,
                seeds=[each.seed for each in sentences],
                texts=self.vocabulary.decode_target,
            )
            found = search(decoder, request)
            if not bool(found.scores[:, 0].isfinite().all()):
                what = "the model's probabilities are not numbers"
                advice = "its training diverged; choose another checkpoint with --checkpoint"
                raise ModelError("MODEL-NAN", "the model", what, advice)
            attention = decoder.align(request.source, found.tokens) if options.alignments else None
        lengths = [len(each.source) for each in sentences]
        return _hypotheses(found, None if attention is None else attention.tolist(), lengths)

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        import numpy as np

        found: dict[int, list[float]] = {}
        for rows in batches([max(map(len, pair)) for pair in pairs], SCORED):
            batch = batch_of(
                [np.array(pairs[row][0]) for row in rows],
                [np.array(pairs[row][1]) for row in rows],
                np.array(rows),
            )
            found.update(zip(rows, self._forced(moved(batch, self.device)), strict=True))
        return [found[row] for row in range(len(pairs))]

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


def _hypotheses(
    found: Hypotheses, attention: list[Any] | None, lengths: Sequence[int]
) -> list[list[Hypothesis]]:
    """What a search found, as lists; what is no hypothesis is left out."""
    tokens, scores = found.tokens.tolist(), found.scores.tolist()
    gains: list[list[list[float]]] = found.log_probabilities.tolist()
    result = []
    for row, length in enumerate(lengths):
        each = []
        for n, score in enumerate(scores[row]):
            if score == -math.inf:
                continue
            ids = tokens[row][n]
            end = ids.index(END) + 1
            rows = None
            if attention is not None:
                rows = [line[:length] for line in attention[row][n][:end]]
            each.append(Hypothesis(ids[:end], score, gains[row][n][:end], rows))
        result.append(each)
    return result
