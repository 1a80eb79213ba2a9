"""The search of the native engine: one model in torch, or an ensemble, in this process.

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
from mt.decoding.batching import BATCH_TOKENS, map_by_length
from mt.decoding.decoders import ensemble, require_attention
from mt.decoding.shortlist import Shortlist, load_shortlist
from mt.decoding.shortlist_decoder import OutOfShortlistMass, ShortlistDecoder
from mt.decoding.static_shapes import inner_decoder, with_static_shapes
from mt.decoding.text_translator import batch_token_budget, diverged
from mt.decoding.types import (
    Decoder,
    EngineOptions,
    Hypotheses,
    Hypothesis,
    Request,
    Search,
    Sentence,
)
from mt.errors import ConfigError
from mt.interfaces import Seq2Seq
from mt.models.modules import linear
from mt.runtime import memory
from mt.runtime.device import Precision, autocast, cpu_has_bf16
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from mt.vocabulary.vocabulary import Vocabulary

CHUNK = 512
"""Positions whose logits are in memory at one time when scoring."""
CUDA_BATCH_TOKENS = 131_072
"""Padded source positions times beams of one batch on a CUDA device: a step takes hardly longer."""
FREE_PARTS, BYTES_PER_TOKEN = 4, 1 << 16
"""A batch takes a quarter of the free memory: two caches and the logits of Transformer big."""
SCORED = 4096
"""Padded positions of one batch when scoring."""


def pick_precision(setting: str, device: torch.device) -> Precision:
    """The precision of decoding; of `auto`, bf16 where it is faster, else fp32."""
    if setting != "auto":
        return cast(Precision, setting)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if linear.can_pack() and cpu_has_bf16() else "fp32"


class TorchSearcher:
    """A `Searcher` with one model, or several, in this process."""

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
            self.precision = "fp32"  # packed weights need no autocast
        self.static = [with_static_shapes(cast(Seq2Seq, model), device) for model in models]
        self.members = [inner_decoder(model, packed) for model in self.static]
        self.decoder = ensemble(self.members)
        self.places = [linear.packed_modules(model) for model in models]

    @cached_property
    def batch_tokens(self) -> int:
        """Padded source positions times beams of one batch, where the options leave it open."""
        if self.device.type != "cuda":
            return BATCH_TOKENS
        fit = torch.cuda.mem_get_info(self.device)[0] // FREE_PARTS // BYTES_PER_TOKEN
        return min(max(fit, BATCH_TOKENS), CUDA_BATCH_TOKENS)

    def num_bytes(self) -> int:
        """The bytes of packed weights and of caches, which stay allocated between batches."""
        packs = [each for places in self.places for each in places.values()]
        packs += [each.project for each in self.members if each.project is not None]
        tensors = [each.weight for each in packs]
        for model in self.static:
            tensors += getattr(getattr(model, "pool", None), "buffers", {}).values()
        return sum(tensor.nbytes for tensor in tensors)

    def repack(self) -> None:
        """Pack the present weights where the earlier ones were, so that captured graphs stay."""
        if self.packed is None:
            return
        for model, member, places in zip(self.models, self.members, self.places, strict=True):
            linear.repack(model, self.packed, places)
            if member.project is not None:
                member.project.copy_(linear.PrepackedWeight(*member.output(), self.packed))

    def unpack(self) -> None:
        """Let the models use their own weights again, which may change."""
        for model in self.models:
            linear.pack(model, None)

    @cached_property
    def shortlist(self) -> Shortlist | None:
        """The shortlist of the run; None without a run."""
        return None if self.run is None else load_shortlist(self.run, self.vocabulary.digest)

    @cached_property
    def _rests(self) -> list[OutOfShortlistMass]:
        """For each model the estimate of the ids that are not on the shortlist."""
        assert self.shortlist is not None, "nothing is left out without a shortlist"
        ids = torch.from_numpy(self.shortlist.others()).to(self.device)
        return [OutOfShortlistMass(cast(Seq2Seq, model), ids) for model in self.models]

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each sentence, in order."""
        search: Search = plugin("search", config.kind).build(config)
        compute = partial(self._search_parts, search, config, options)
        lengths = [len(each.source) for each in sentences]
        budget = batch_token_budget(config, options, self.batch_tokens)
        return iter(map_by_length(compute, sentences, lengths, budget))

    def _search_parts(
        self, search: Search, config: SearchConfig, options: EngineOptions,
        sentences: Sequence[Sentence],
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """`_search_batch`; of halves, where the memory does not suffice."""
        try:
            return self._search_batch(search, config, options, sentences)
        except (MemoryError, RuntimeError) as error:
            if len(sentences) == 1 or not memory.is_out_of_memory(error):
                raise
        if self.device.type == "cuda":  # out here the error and its frames are gone
            torch.cuda.empty_cache()
        middle = len(sentences) // 2
        halves = sentences[:middle], sentences[middle:]
        return [
            each for half in halves for each in self._search_parts(search, config, options, half)
        ]

    def _search_batch(
        self, search: Search, config: SearchConfig, options: EngineOptions,
        sentences: Sequence[Sentence],
    ) -> list[list[Hypothesis]]:  # fmt: skip
        source = torch.from_numpy(pad_rows([np.array(each.source) for each in sentences]))
        prefixes = [each.prefix for each in sentences]
        shortlist = self.shortlist if config.shortlist else None
        with self.inference():
            decoder, texts, ids = self.decoder, self.vocabulary.decode_target, None
            if shortlist is not None:
                listed = shortlist.ids((each.source for each in sentences), prefixes)
                prefixes = [np.searchsorted(listed, prefix).tolist() for prefix in prefixes]
                texts = partial(_texts, listed, texts)
                ids = torch.from_numpy(listed).to(self.device)
                decoder = self._restricted(ids)
            request = Request(
                source=source.to(self.device),
                max_lengths=torch.tensor([e.max_length for e in sentences], device=self.device),
                prefixes=prefixes if any(prefixes) else None,
                n_best=options.n_best,
                min_length=config.min_length,
                seeds=[each.seed for each in sentences],
                texts=texts,
            )
            result = search(decoder, request)
            if not bool(result.scores[:, 0].isfinite().all()):
                raise diverged()
            attention = None
            if options.alignments:
                attention = decoder.align(request.source, result.tokens).tolist()
            if ids is not None:
                result = replace(result, tokens=ids[result.tokens])
        return _to_lists(result, attention, [len(each.source) for each in sentences])

    def _restricted(self, ids: torch.Tensor) -> Decoder:
        """A decoder whose tokens are places among the ids [V']."""
        each = zip(self.static, self._rests, strict=True)
        return ensemble([ShortlistDecoder(model, ids, rest, self.packed) for model, rest in each])

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        lengths = [max(map(len, pair)) for pair in pairs]
        return map_by_length(self._force_batch, pairs, lengths, SCORED)

    def _force_batch(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[list[float]]:
        source, target = ([np.array(pair[side]) for pair in pairs] for side in (0, 1))
        batch = to_device(to_batch(source, target, np.arange(len(pairs))), self.device)
        models = [cast(Seq2Seq, model) for model in self.models]
        with self.inference():
            real = batch.labels != 0  # [B, T]
            hidden = [m.decode(batch.inputs, m.encode(batch.source))[real] for m in models]
            log_probs: list[float] = []
            labels = batch.labels[real][:, None]  # [P, 1]
            for start in range(0, len(labels), CHUNK):
                part = slice(start, start + CHUNK)
                logits = _average_logits(models, [states[part] for states in hidden])  # [CHUNK, V]
                chosen = logits.gather(1, labels[part])[:, 0] - logits.logsumexp(dim=1)
                log_probs += chosen.tolist()
        every = iter(log_probs)
        return [list(islice(every, count)) for count in real.sum(dim=1).tolist()]

    def forced(self, source: Sequence[int], target: Sequence[int]) -> Hypothesis:
        """The hypothesis of a given target; see `AttentionSearcher`."""
        (log_probs,) = self.force([(source, target)])
        with self.inference():
            ids = torch.tensor([source], device=self.device)  # [1, S]
            tokens = torch.tensor([[target]], device=self.device)  # [1, 1, T]
            rows = self.decoder.align(ids, tokens)[0, 0].tolist()
        return Hypothesis(target, math.fsum(log_probs), log_probs, rows)

    def attentions(
        self, source: Sequence[int], target: Sequence[int]
    ) -> dict[str, list[NDArray[np.float32]]]:
        """The attention maps [H, T, S] of one pair; see `AttentionSearcher`."""
        if len(self.models) > 1:
            what = "an ensemble has no heads of its own, only its models have"
            raise ConfigError("ATTENTION", "the models", what, "give one of them")
        model = cast(Seq2Seq, self.models[0])
        require_attention(model, "attentions")
        with self.inference():
            ids = torch.tensor([source], device=self.device)  # [1, S]
            inputs = torch.tensor([[BEGIN, *target[:-1]]], device=self.device)  # [1, T]
            return {
                part: [layer[0].float().cpu().numpy() for layer in layers]
                for part, layers in model.attentions(ids, inputs).items()
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
    """The mean over the models of their logits [P, V] of hidden states [P, D].

    Its softmax is that of the mean log-probabilities.
    """
    each = zip(models, hidden, strict=True)
    logits = [F.linear(states, *model.output()).float() for model, states in each]
    return logits[0] if len(logits) == 1 else sum(logits[1:], logits[0]) / len(logits)


def prepack_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The type in which to pack weights; None where that is impossible."""
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


def _to_lists(
    result: Hypotheses, attention: list[Any] | None, lengths: Sequence[int]
) -> list[list[Hypothesis]]:
    """The hypotheses of each sentence; those with score -inf are left out."""
    tokens, scores = result.tokens.tolist(), result.scores.tolist()
    log_probs: list[list[list[float]]] = result.log_probabilities.tolist()
    sentences = []
    for row, length in enumerate(lengths):
        hypotheses = []
        for n, score in enumerate(scores[row]):
            if score == -math.inf:
                continue
            end = tokens[row][n].index(END) + 1
            rows = attention and [line[:length] for line in attention[row][n][:end]]
            hypotheses.append(
                Hypothesis(tokens[row][n][:end], score, log_probs[row][n][:end], rows)
            )
        sentences.append(hypotheses)
    return sentences
