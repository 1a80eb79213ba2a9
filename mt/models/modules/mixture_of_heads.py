"""Attention of which each sentence has some heads only, and no others are computed.

Sentences that chose a head are gathered, go through its matrices together, and go back: H
products of B*k/H sentences each, in place of one product of B sentences with all heads. Gathering
the matrices for each sentence instead would move more than it computes: 4 K D numbers a head,
for the few positions of a sentence.

In what follows the heads of a sentence are numbered 1 to k, whichever they are: keys, values, the
cache and the attention itself are those of a model that has k heads.

Legend: B sentences, N beams, R rows (B, or B*N when decoding), T queries, S keys, L positions of
a sentence over all its beams, D model width, H heads, k chosen, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mt.models.modules.attention import attend, attention_weights
from mt.models.modules.head_gates import Choice
from mt.models.modules.kv_cache import KeyValueCache
from mt.models.modules.linear import Packed, linear

Project = Callable[[Tensor], Tensor]
"""The product of states [P, L, D] with the matrix of one head."""


class ChosenAttention(nn.Module):
    """Multi-head attention, of itself or of a source, with k heads for each sentence.

    Its methods are those of `mt.layers.SelfAttention`, each with the choice as last argument.
    """

    dtype: torch.dtype | None = None
    """The type that it is packed in."""
    once = False
    """See `mt.linear.once`."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, d_head: int) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.dropout = n_heads, d_head, dropout
        width = n_heads * d_head
        self.query = nn.Linear(d_model, width)
        self.key_value = nn.Linear(d_model, 2 * width)
        self.output = nn.Linear(width, d_model)
        self.packed: dict[str, list[Packed]] = {}
        """For each product a packed matrix a head, from its first use on."""
        self.watch: list[Tensor] | None = None
        """A list here receives the weights [B, k, T, S] of each call."""

    # -------------------------------------------------------------------------- what layers call

    def attend_self(self, x: Tensor, valid: Tensor | None, causal: bool, choice: Choice) -> Tensor:
        """All positions [B, T, D] at once."""
        query, key, value = self._gathered(x, choice, "all").chunk(3, dim=-1)  # [B, k, T, K]
        return self._scattered(self._attend(query, (key, value), valid, causal), choice)

    def attend_cached(
        self, x: Tensor, cache: KeyValueCache, layer: int, choice: Choice
    ) -> Tensor:  # fmt: skip
        """New positions [R, t, D] after those in the cache."""
        made = self._gathered(self._by_sentence(x, choice), choice, "all")  # [B, k, L, 3K]
        query, key, value = (self._by_row(part, x) for part in made.chunk(3, dim=-1))
        return self._put_back(cache.attend(layer, query, key, value), x, choice)

    def keys_values(self, memory: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B, k, S, K], of what is attended to [B, S, D]."""
        key, value = self._gathered(memory, choice, "source").chunk(2, dim=-1)
        return key, value

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], valid: Tensor | None, choice: Choice
    ) -> Tensor:
        """Attend from x [B, T, D] to keys and values [B, k, S, K]."""
        query = self._gathered(x, choice, "query")
        return self._scattered(self._attend(query, keys_values, valid, False), choice)

    def attend_source(
        self, x: Tensor, cache: KeyValueCache, layer: int, choice: Choice
    ) -> Tensor:  # fmt: skip
        """Attend from new positions x [R, t, D] to the source in the cache."""
        query = self._gathered(self._by_sentence(x, choice), choice, "query")
        return self._put_back(cache.attend_source(layer, self._by_row(query, x)), x, choice)

    # ---------------------------------------------------------------------------------- products

    def _attend(
        self, query: Tensor, keys_values: tuple[Tensor, Tensor], valid: Tensor | None, causal: bool
    ) -> Tensor:
        key, value = keys_values
        if self.watch is not None:
            wide = torch.promote_types(query.dtype, key.dtype)
            self.watch.append(attention_weights(query.to(wide), key.to(wide), valid, causal))
        return attend(query, key, value, valid, causal, self.dropout if self.training else 0.0)

    def _gathered(self, x: Tensor, choice: Choice, product: str) -> Tensor:
        """[B, L, D] -> [B, k, L, W]: each sentence through the matrices of its heads."""
        return self._through(x.index_select(0, choice.sentences), choice, product)

    def _scattered(self, mixed: Tensor, choice: Choice) -> Tensor:
        """What the heads of each sentence give, [B, k, L, K] -> [B, L, D]."""
        mixed = mixed * choice.weights[..., None, None].to(mixed.dtype)
        pairs = mixed.flatten(0, 1).index_select(0, choice.order)  # [B*k, L, K]
        made = self._through(pairs, choice, "output").sum(dim=1)
        return made + self.output.bias.to(made.dtype)

    def _through(self, pairs: Tensor, choice: Choice, product: str) -> Tensor:
        """[B*k, L, .] in the order of the choice -> [B, k, L, W]."""
        heads = self._products(product)
        parts = list(zip(heads, pairs.split(choice.counts), strict=True))
        some = [pair for pair in parts if len(pair[1])] or parts[:1]
        made = torch.cat([project(part) for project, part in some])
        return made.index_select(0, choice.places).unflatten(0, choice.heads.shape)

    def _by_sentence(self, x: Tensor, choice: Choice) -> Tensor:
        return x.reshape(len(choice.heads), -1, x.size(-1))  # [R, t, D] -> [B, L, D]

    def _by_row(self, made: Tensor, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        return made.transpose(1, 2).reshape(rows, tokens, made.size(1), -1)  # -> [R, t, k, K]

    def _put_back(self, mixed: Tensor, x: Tensor, choice: Choice) -> Tensor:
        """[R, t, k*K] -> [R, t, D]."""
        heads = mixed.reshape(*choice.heads.shape[:1], -1, choice.heads.size(1), self.d_head)
        return self._scattered(heads.transpose(1, 2), choice).view(x.shape)

    # ---------------------------------------------------------------------------------- matrices

    def _products(self, product: str) -> Sequence[Project]:
        """The product of each head."""
        if self.dtype is not None and not torch.is_grad_enabled():
            if product not in self.packed:  # what is made of the source once stays in fp32
                kept = torch.float32 if product == "source" else self.dtype
                pairs = self._matrices(product)
                self.packed[product] = [Packed(w.contiguous(), b, kept) for w, b in pairs]
            return self.packed[product]
        return [_product(*pair) for pair in self._matrices(product)]

    def _matrices(self, product: str) -> list[tuple[Tensor, Tensor | None]]:
        """For each head the matrix [W, .] and the bias [W] of a product."""
        if product == "output":
            columns = self.output.weight.unflatten(1, (self.n_heads, -1))  # [D, H, K]
            return [(columns[:, head], None) for head in range(self.n_heads)]
        parts = [] if product == "source" else [self.query]
        parts += [] if product == "query" else [self.key_value]
        weight, bias = (
            torch.cat(
                [
                    getattr(part, name).unflatten(0, (-1, self.n_heads, self.d_head))
                    for part in parts
                ]
            ).transpose(0, 1)
            for name in ("weight", "bias")
        )  # [H, parts, K, D], [H, parts, K]
        each = zip(weight.flatten(1, 2).unbind(), bias.flatten(1, 2).unbind(), strict=True)
        return list(each)

    def pack(self, dtype: torch.dtype | None) -> None:
        """See `mt.linear.pack`."""
        self.dtype, self.packed = dtype, {}


def _product(weight: Tensor, bias: Tensor | None) -> Project:
    return lambda part: linear(part, weight, bias)


class ChosenCache(KeyValueCache):
    """A cache that knows what each sentence has chosen.

    Args:
        choices: for each layer, of its self-attention and of its attention to the source.
        source, valid, beams, max_length: see `mt.attention.KeyValueCache`.
    """

    def __init__(
        self, choices: Sequence[Sequence[Sequence[Choice]]], source: list[tuple[Tensor, Tensor]],
        valid: Tensor, beams: int, max_length: int,
    ) -> None:  # fmt: skip
        super().__init__(source, valid, beams, max_length)
        self.choices = list(choices)

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], ascending, with their beams."""
        super().keep(sentences)
        self.choices = [
            [[choice.keep(sentences) for choice in part] for part in layer]
            for layer in self.choices
        ]
