"""The search of the native engine: one model in torch, or several together, in this process.

Sentences are sorted by length and searched in batches of `batch_tokens` padded source positions
times beams.

Legend: B sentences, N beams, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn import functional as F

from mt.config.plugins import plugin
from mt.config.schema import SearchConfig
from mt.data.collate import pad_rows, to_batch, to_device
from mt.decoding import shortlist
from mt.decoding.batching import length_batches
from mt.decoding.decoders import OutOfShortlistMass, ShortlistDecoder, ensemble, without_attention
from mt.decoding.shortlist import Shortlist
from mt.decoding.static_shapes import inner_decoder, with_static_shapes
from mt.decoding.text_translator import batch_token_budget
from mt.decoding.types import (
    Decoder,
    EngineOptions,
    Hypotheses,
    Hypothesis,
    Request,
    Search,
    Sentence,
)
from mt.errors import ConfigError, ModelError
from mt.interfaces import Batch, Seq2Seq
from mt.models.modules import linear
from mt.runtime.device import Precision, autocast, cpu_has_bf16
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from mt.vocabulary.vocabulary import Vocabulary

CHUNK = 512
"""Positions whose logits are held at one time when scoring."""
SCORED = 4096
"""Padded positions of one batch when scoring."""


def pick_precision(asked: str, device: torch.device) -> Precision:
    """The precision of decoding: what was asked, else bf16 where it is faster, else fp32."""
    if asked != "auto":
        return cast(Precision, asked)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if linear.can_pack() and cpu_has_bf16() else "fp32"


class TorchSearcher:
    """Searches with one model, or several, in this process; see `mt.contracts.Searcher`."""

    prefetch_windows = 0

    def __init__(
        self, models: Sequence[nn.Module], vocabulary: Vocabulary, device: torch.device,
        precision: Precision, run: Path | None = None,
    ) -> None:  # fmt: skip
        self.models, self.vocabulary, self.run = models, vocabulary, run
        self.device, self.precision = device, precision
        self.packed = packed = prepack_dtype(device, precision)
        if packed is not None:
            for model in models:
                linear.pack(model, packed)
            self.precision = "fp32"  # what is packed needs no autocast
        self.framed = [with_static_shapes(cast(Seq2Seq, model), device) for model in models]
        self.decoder = ensemble([inner_decoder(model, packed) for model in self.framed])

    @cached_property
    def shortlist(self) -> Shortlist | None:
        """That of the run; None where there is no run."""
        digest = self.vocabulary.digest
        return None if self.run is None else shortlist.load_shortlist(self.run, digest)

    @cached_property
    def _rests(self) -> list[OutOfShortlistMass]:
        """For each model what estimates the ids that are not on the shortlist."""
        assert self.shortlist is not None, "nothing is left out without a shortlist"
        others = self.shortlist.others()
        ids = torch.from_numpy(others).to(self.device)
        return [OutOfShortlistMass(cast(Seq2Seq, model), ids) for model in self.models]

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each sentence, in order."""
        search: Search = plugin("search", config.kind).build(config)
        budget = batch_token_budget(config, options)
        found: dict[int, list[Hypothesis]] = {}
        for rows in length_batches([len(each.source) for each in sentences], budget):
            batch = [sentences[row] for row in rows]
            known = self.shortlist if config.shortlist else None
            results = self._batch(search, batch, options, known)
            found.update(zip(rows, results, strict=True))
        return (found.pop(row) for row in range(len(sentences)))

    def _batch(
        self, search: Search, sentences: Sequence[Sentence], options: EngineOptions,
        known: Shortlist | None,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        source = torch.from_numpy(pad_rows([np.array(each.source) for each in sentences]))
        prefixes = [each.prefix for each in sentences]
        with self.inference():
            decoder, texts, ids = self.decoder, self.vocabulary.decode_target, None
            if known is not None:
                places = known.ids((each.source for each in sentences), prefixes)
                prefixes = [np.searchsorted(places, prefix).tolist() for prefix in prefixes]
                texts = partial(_texts, places, texts)
                ids = torch.from_numpy(places).to(self.device)
                decoder = self._restricted(ids)
            request = Request(
                source=source.to(self.device),
                max_lengths=torch.tensor([e.max_length for e in sentences], device=self.device),
                prefixes=prefixes if any(prefixes) else None,
                n_best=options.n_best,
                seeds=[each.seed for each in sentences],
                texts=texts,
            )
            found = search(decoder, request)
            if not bool(found.scores[:, 0].isfinite().all()):
                what = "the model's probabilities are not numbers"
                advice = "its training diverged; choose another checkpoint with --checkpoint"
                raise ModelError("MODEL-NAN", "the model", what, advice)
            attention = None
            if options.alignments:
                attention = decoder.align(request.source, found.tokens).tolist()
            if ids is not None:
                found = replace(found, tokens=ids[found.tokens])
        lengths = [len(each.source) for each in sentences]
        return _hypotheses(found, attention, lengths)

    def _restricted(self, ids: torch.Tensor) -> Decoder:
        """What searches among the ids [V'] only, by their places."""
        each = zip(self.framed, self._rests, strict=True)
        return ensemble([ShortlistDecoder(model, ids, rest, self.packed) for model, rest in each])

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        found: dict[int, list[float]] = {}
        for rows in length_batches([max(map(len, pair)) for pair in pairs], SCORED):
            batch = to_batch(
                [np.array(pairs[row][0]) for row in rows],
                [np.array(pairs[row][1]) for row in rows],
                np.array(rows),
            )
            found.update(zip(rows, self._forced(to_device(batch, self.device)), strict=True))
        return [found[row] for row in range(len(pairs))]

    def _forced(self, batch: Batch) -> list[list[float]]:
        """The log-probability of each label of each sentence."""
        models = [cast(Seq2Seq, model) for model in self.models]
        with self.inference():
            real = batch.labels != 0  # [B, T]
            hidden = [m.decode(batch.inputs, m.encode(batch.source))[real] for m in models]
            gains: list[float] = []
            labels = batch.labels[real][:, None]  # [P, 1]
            for start in range(0, len(labels), CHUNK):
                part = slice(start, start + CHUNK)
                logits = _average_logits(models, [states[part] for states in hidden])  # [CHUNK, V]
                chosen = logits.gather(1, labels[part])[:, 0] - logits.logsumexp(dim=1)
                gains += chosen.tolist()
        every = iter(gains)
        return [list(islice(every, count)) for count in real.sum(dim=1).tolist()]

    def forced(self, source: Sequence[int], target: Sequence[int]) -> Hypothesis:
        """A given target as if it had been found; see `mt.contracts.Watcher`."""
        (gains,) = self.force([(source, target)])
        with self.inference():
            ids = torch.tensor([source], device=self.device)  # [1, S]
            tokens = torch.tensor([[target]], device=self.device)  # [1, 1, T]
            rows = self.decoder.align(ids, tokens)[0, 0].tolist()
        return Hypothesis(target, math.fsum(gains), gains, rows)

    def attentions(
        self, source: Sequence[int], target: Sequence[int]
    ) -> dict[str, list[NDArray[np.float32]]]:
        """What the model attends to; see `mt.contracts.Watcher`."""
        if len(self.models) > 1:
            what = "an ensemble has no heads of its own, only its models have"
            raise ConfigError("ATTENTION", "the models", what, "give one of them")
        with self.inference():
            ids = torch.tensor([source], device=self.device)  # [1, S]
            inputs = torch.tensor([[BEGIN, *target[:-1]]], device=self.device)  # [1, T]
            model = cast(Seq2Seq, self.models[0])
            if not hasattr(model, "attentions"):
                raise without_attention(model)
            found = model.attentions(ids, inputs)
            return {
                part: [layer[0].float().cpu().numpy() for layer in layers]
                for part, layers in found.items()
            }

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode, no gradients, matrix products in the engine's precision."""
        training = [model for model in self.models if model.training]
        for model in training:
            model.eval()
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                yield
        finally:
            for model in training:
                model.train()


def _average_logits(models: Sequence[Seq2Seq], hidden: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits [P, V] of hidden states [P, D] of each model: of several, the mean.

    Made probabilities of, it gives what the mean of their log-probabilities gives.
    """
    each = zip(models, hidden, strict=True)
    logits = [F.linear(states, *model.output()).float() for model, states in each]
    return logits[0] if len(logits) == 1 else sum(logits[1:], logits[0]) / len(logits)


def prepack_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The type to pack weights in, where that can be done."""
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device.type == "cpu":
        return types.get(precision) if linear.can_pack() else None
    return {**types, "fp16": torch.float16}[precision]


def _texts(
    ids: NDArray[np.int64], decode: Callable[[Sequence[Sequence[int]]], list[str]],
    places: Sequence[Sequence[int]],
) -> list[str]:  # fmt: skip
    """The texts of tokens that are places among `ids` [V']."""
    return decode([ids[list(each)].tolist() for each in places])


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
