"""Mixture of attention heads (Zhang et al. 2022): each sentence uses k of H heads of an attention.

Unselected heads are not computed. The sentences of one head are gathered, multiplied by its
matrices and put back: H products of B*k/H sentences each, in place of one product of B sentences
with all heads. Gathering matrices per sentence instead would move 4 K D numbers per head, more
than the work of the few positions of a sentence.

The heads of a sentence are numbered 1 to k: keys, values, the cache and the attention itself are
those of a model with k heads.

Legend: B sentences, N beams, R rows (B, or B*N when decoding), T queries, S keys, L positions of
a sentence over all its beams, D model width, H heads, k selected, K head width, A attentions,
P pairs of a sentence and a head of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.models.modules.kv_cache import KeyValueCache
from mt.models.modules.layers import RecordedAttention
from mt.models.modules.linear import PrepackedWeight, linear

Product = Callable[[Tensor], Tensor]
"""Multiplies states [P, L, D] by the matrix of one head."""


class HeadSelection:
    """The heads [B, k] of each sentence in one attention, ascending, and their weights [B, k]."""

    def __init__(self, heads: Tensor, weights: Tensor, n_heads: int) -> None:
        self.heads, self.weights, self.n_heads = heads, weights, n_heads

    @cached_property
    def order(self) -> Tensor:
        """[B*k] the pairs of a sentence and a head, those of one head together."""
        return self.heads.flatten().argsort(stable=True)

    @cached_property
    def places(self) -> Tensor:
        """[B*k] the place of each pair in that order."""
        return self.order.argsort()

    @cached_property
    def sentences(self) -> Tensor:
        """[B*k] the sentence of each pair, in that order."""
        return self.order // self.heads.size(1)

    @cached_property
    def counts(self) -> list[int]:
        """The number of sentences of each head; this synchronises with a device."""
        counted: list[int] = self.heads.flatten().bincount(minlength=self.n_heads).tolist()
        return counted

    def select_sentences(self, sentences: Tensor) -> HeadSelection:
        """Return the selection of these sentences [B'] only."""
        return HeadSelection(self.heads[sentences], self.weights[sentences], self.n_heads)


class HeadRouter(nn.Module):
    """Selects k of H heads of each of A attentions for a sentence, by the mean of its states.

    The result of a selected head is weighted by its share p of a softmax over all heads, divided
    by the mean share of the selected ones without gradient: the router learns from the loss even
    with k = 1 (Zhang et al. 2022, "Mixture of Attention Heads", section 3.1).

    To balance the load, the bias of a head goes down when more sentences selected it than k/H,
    and up when fewer (for experts: Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing"). Here a
    term of the loss does it that is linear in the bias. It is a sum over sentences, so it does not
    depend on how an update is cut into micro-batches. Its value is 0, so the reported loss is the
    model's.
    """

    def __init__(self, d_model: int, attentions: int, n_heads: int, selected: int) -> None:
        super().__init__()
        self.attentions, self.n_heads, self.selected = attentions, n_heads, selected
        self.linear = nn.Linear(d_model, attentions * n_heads)
        self.loads: Tensor | None = None
        """[A*H] sentences of each head above its equal share, since the last `balance`."""

    def forward(self, states: Tensor, valid: Tensor) -> list[HeadSelection]:
        """Select the heads of each attention by states [B, S, D] where `valid` [B, S]."""
        weight, bias = self.linear.weight, self.linear.bias
        with torch.autocast(states.device.type, enabled=False):
            real = valid[..., None].to(weight.dtype)
            mean = (states.to(weight.dtype) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
            logits = F.linear(mean, weight, bias).unflatten(1, (self.attentions, self.n_heads))
        heads = logits.topk(self.selected, dim=-1).indices.sort(dim=-1).values  # [B, A, k]
        shares = logits.softmax(dim=-1).gather(-1, heads)
        weights = shares / shares.detach().mean(dim=-1, keepdim=True)
        if self.training:
            used = torch.zeros_like(logits).scatter(-1, heads, 1.0) - self.selected / self.n_heads
            loads = (used.detach() * valid.any(dim=1)[:, None, None]).sum(dim=0).flatten()
            self.loads = loads if self.loads is None else self.loads + loads
        pairs = zip(heads.unbind(dim=1), weights.unbind(dim=1), strict=True)
        return [HeadSelection(each, share, self.n_heads) for each, share in pairs]

    def balance(self) -> Tensor:
        """Return 0 with a gradient that balances the loads of the passes since the last call."""
        loads, self.loads = self.loads, None
        if loads is None:
            return self.linear.bias.sum() * 0
        total = (self.linear.bias * loads).sum()
        return total - total.detach()


class MixtureOfHeadsCache(KeyValueCache):
    """A `KeyValueCache` with the selections of each layer's self- and cross-attention."""

    def __init__(
        self, selections: Sequence[tuple[HeadSelection, HeadSelection]],
        source: list[tuple[Tensor, Tensor]], valid: Tensor, beams: int, max_length: int,
    ) -> None:  # fmt: skip
        super().__init__(source, valid, beams, max_length)
        self.selections = list(selections)

    def select_sentences(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], ascending, with their beams."""
        super().select_sentences(sentences)
        self.selections = [
            (own.select_sentences(sentences), cross.select_sentences(sentences))
            for own, cross in self.selections
        ]


class MixtureOfHeadsAttention(RecordedAttention):
    """Self- or cross-attention with k heads for each sentence.

    Its methods are those of `layers.SelfAttention`, with the selection as last argument or in the
    cache.
    """

    dtype: torch.dtype | None = None
    """The type of the packed matrices."""
    keep_fp32 = False
    """See `linear.keep_fp32`."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, d_head: int) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.dropout = n_heads, d_head, dropout
        width = n_heads * d_head
        self.query = nn.Linear(d_model, width)
        self.key_value = nn.Linear(d_model, 2 * width)
        self.output = nn.Linear(width, d_model)
        self.packed: dict[str, list[PrepackedWeight]] = {}
        """For each product a packed matrix per head, from its first use on."""

    # -------------------------------------------------------------------------- what layers call

    def attend_self(
        self, x: Tensor, valid: Tensor | None, causal: bool, selection: HeadSelection
    ) -> Tensor:
        """Attend from all positions [B, T, D] to each other."""
        query, key, value = self._gather(x, selection, "all").chunk(3, dim=-1)  # [B, k, T, K]
        return self._scatter(self._attend(query, (key, value), valid, causal), selection)

    def attend_cached(self, x: Tensor, cache: MixtureOfHeadsCache, layer: int) -> Tensor:
        """Attend from new positions [R, t, D] to themselves and to those in the cache."""
        selection = cache.selections[layer][0]
        mixed = self._gather(_by_sentence(x, selection), selection, "all")  # [B, k, L, 3K]
        query, key, value = (_by_row(part, x) for part in mixed.chunk(3, dim=-1))
        return self._scatter_rows(cache.attend(layer, query, key, value), x, selection)

    def keys_values(self, memory: Tensor, selection: HeadSelection) -> tuple[Tensor, Tensor]:
        """Compute keys and values, each [B, k, S, K], of a memory [B, S, D]."""
        key, value = self._gather(memory, selection, "source").chunk(2, dim=-1)
        return key, value

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], valid: Tensor | None,
        selection: HeadSelection,
    ) -> Tensor:  # fmt: skip
        """Attend from x [B, T, D] to keys and values [B, k, S, K]."""
        query = self._gather(x, selection, "query")
        return self._scatter(self._attend(query, keys_values, valid, False), selection)

    def attend_source(self, x: Tensor, cache: MixtureOfHeadsCache, layer: int) -> Tensor:
        """Attend from new positions x [R, t, D] to the source in the cache."""
        selection = cache.selections[layer][1]
        query = self._gather(_by_sentence(x, selection), selection, "query")
        return self._scatter_rows(cache.attend_source(layer, _by_row(query, x)), x, selection)

    # ---------------------------------------------------------------------------------- products

    def _gather(self, x: Tensor, selection: HeadSelection, product: str) -> Tensor:
        """Multiply each sentence by the matrices of its heads: [B, L, D] -> [B, k, L, W]."""
        return self._multiply(x.index_select(0, selection.sentences), selection, product)

    def _scatter(self, mixed: Tensor, selection: HeadSelection) -> Tensor:
        """Add up the results of the heads of each sentence: [B, k, L, K] -> [B, L, D]."""
        mixed = mixed * selection.weights[..., None, None].to(mixed.dtype)
        pairs = mixed.flatten(0, 1).index_select(0, selection.order)  # [B*k, L, K]
        total = self._multiply(pairs, selection, "output").sum(dim=1)
        return total + self.output.bias.to(total.dtype)

    def _scatter_rows(self, mixed: Tensor, x: Tensor, selection: HeadSelection) -> Tensor:
        """`_scatter` of rows of beams: [R, t, k*K] -> [R, t, D]."""
        heads = mixed.reshape(*selection.heads.shape[:1], -1, selection.heads.size(1), self.d_head)
        return self._scatter(heads.transpose(1, 2), selection).view(x.shape)

    def _multiply(self, pairs: Tensor, selection: HeadSelection, product: str) -> Tensor:
        """[B*k, L, .] in the order of the selection -> [B, k, L, W]."""
        parts = list(zip(self._products(product), pairs.split(selection.counts), strict=True))
        used = [pair for pair in parts if len(pair[1])] or parts[:1]
        states = torch.cat([multiply(part) for multiply, part in used])
        return states.index_select(0, selection.places).unflatten(0, selection.heads.shape)

    # ---------------------------------------------------------------------------------- matrices

    def _products(self, product: str) -> Sequence[Product]:
        """The product of each head."""
        if self.dtype is not None and not torch.is_grad_enabled():
            if product not in self.packed:  # source products run once per sentence
                dtype = torch.float32 if product == "source" else self.dtype
                pairs = self._matrices(product)
                self.packed[product] = [PrepackedWeight(w.contiguous(), b, dtype) for w, b in pairs]
            return self.packed[product]
        return [_product(*pair) for pair in self._matrices(product)]

    def _matrices(self, product: str) -> list[tuple[Tensor, Tensor | None]]:
        """The matrix [W, .] and the bias [W] of a product, for each head."""
        if product == "output":
            columns = self.output.weight.unflatten(1, (self.n_heads, -1))  # [D, H, K]
            return [(columns[:, head], None) for head in range(self.n_heads)]
        parts = [] if product == "source" else [self.query]
        parts += [] if product == "query" else [self.key_value]
        shape = (-1, self.n_heads, self.d_head)
        weight, bias = (
            torch.cat([getattr(part, name).unflatten(0, shape) for part in parts]).transpose(0, 1)
            for name in ("weight", "bias")
        )  # [H, parts, K, D], [H, parts, K]
        return list(zip(weight.flatten(1, 2).unbind(), bias.flatten(1, 2).unbind(), strict=True))

    def pack(self, dtype: torch.dtype | None) -> None:
        """See `linear.pack`."""
        self.dtype, self.packed = dtype, {}


def _product(weight: Tensor, bias: Tensor | None) -> Product:
    return lambda part: linear(part, weight, bias)


def _by_sentence(x: Tensor, selection: HeadSelection) -> Tensor:
    return x.reshape(len(selection.heads), -1, x.size(-1))  # [R, t, D] -> [B, L, D]


def _by_row(states: Tensor, x: Tensor) -> Tensor:
    rows, tokens, _ = x.shape
    return states.transpose(1, 2).reshape(rows, tokens, states.size(1), -1)  # -> [R, t, k, K]
