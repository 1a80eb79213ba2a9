"""Decoding in few static shapes, so that a CUDA device replays graphs of the decoding step.

A decoding step is a hundred small kernels: launching them takes a fast device longer than
running them. Here sentences, source length and tokens are rounded up to a shape
(`mt.models.modules.static_kv_cache`), all tensors of a step have fixed addresses, and the step of
each shape is captured once (`mt.runtime.cuda_graphs`). When sentences leave, or more tokens come
than fit, the batch moves to another shape. The plain twin is `ModelDecoder` of the model itself;
without a capturer the same code runs anywhere.

Legend: B sentences of the shape, b real ones, N beams, D width, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from mt.decoding.candidates import top_k_in_blocks
from mt.decoding.decoders import ModelDecoder
from mt.interfaces import Memory, Seq2Seq, StaticCacheModel
from mt.models.modules.linear import packed_weights
from mt.models.modules.static_kv_cache import BufferPool, StaticCache
from mt.runtime.console import print_line
from mt.runtime.cuda_graphs import CudaGraphs, GraphCache, GraphCapturer


def with_static_shapes(model: Seq2Seq, device: torch.device) -> Seq2Seq:
    """The model in static shapes where it can and that pays (on a CUDA device); else as it is."""
    if device.type != "cuda" or not isinstance(model, StaticCacheModel) or not model.uniform_heads:
        return model
    return cast(Seq2Seq, StaticShapeModel(model, device, CudaGraphs(device)))


def inner_decoder(model: Seq2Seq, packed: torch.dtype | None) -> ModelDecoder:
    """The decoder of a model that may be in static shapes."""
    if isinstance(model, StaticShapeModel):
        return StaticShapeDecoder(model, packed)
    return ModelDecoder(model, packed)


class StaticShapeModel:
    """A `Seq2Seq` that decodes in static shapes, one batch at a time; the rest is the model's.

    The model is already packed for inference. Without a capturer steps run plainly.
    """

    def __init__(
        self, model: StaticCacheModel, device: torch.device, capturer: GraphCapturer | None,
        log: Callable[[str], None] = print_line,
    ) -> None:  # fmt: skip
        self.model, self.pool = model, BufferPool(device)
        self.graphs = GraphCache(capturer, log, "a step of decoding")
        self.shapes: dict[Hashable, list[tuple[torch.Size, torch.dtype]]] = {}
        self.moved = 0
        self.weights: list[Tensor] = []
        """All tensors of the model: graphs read them, so they must outlive them."""
        self.addresses: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def start(self, memory: Memory, beams: int, max_length: int) -> StaticCache:
        """A cache in its first shape; the cache before it is invalid."""
        source = self.model.keys_values(memory, max_length)
        self.cache = StaticCache(self.pool, source, memory.valid, beams)
        self._drop_graphs_if_weights_moved()
        return self.cache

    def _drop_graphs_if_weights_moved(self) -> None:
        module = cast(nn.Module, self.model)
        weights = [*module.parameters(), *module.buffers(), *packed_weights(module)]
        addresses = [(id(each), 0 if each.is_mkldnn else each.data_ptr()) for each in weights]
        if addresses != self.addresses:
            self.graphs.forget()
        self.weights, self.addresses = weights, addresses

    def decode(self, target: Tensor, memory: Memory, cache: Any = None) -> Tensor:
        """Hidden states [b*N, 1, D] after feeding target [b*N, 1]; see `Seq2Seq`."""
        if cache is None:
            return self.model.decode(target, memory)
        cache.grow()
        tokens = self.pool.view("tokens", (cache.shape.rows, 1), torch.long)
        tokens[: len(target)] = target
        no_memory = cast(Memory, None)  # a graph would read it at the addresses of this batch
        (self.hidden,) = self.run("hidden", lambda: [self.model.decode(tokens, no_memory, cache)])
        cache.steps += 1
        return self.hidden[: len(target)]

    def run(
        self, name: str, compute: Callable[[], Iterable[Tensor]], *more: Hashable
    ) -> list[Tensor]:
        """The results of `compute` at fixed addresses: the next run overwrites them.

        Args:
            name: of the results.
            compute: reads fixed addresses only; in one shape it always does the same, but for
            more: what else decides what it does.
        """
        key = name, self.cache.shape, *more
        first = list(compute()) if key not in self.shapes else None
        if first is not None:  # only now the shapes of the results are known
            self.shapes[key] = [(each.shape, each.dtype) for each in first]
        results = [
            self.pool.view(f"{name} {number}", shape, dtype)
            for number, (shape, dtype) in enumerate(self.shapes[key])
        ]

        def copy(computed: Iterable[Tensor]) -> None:
            for result, each in zip(results, computed, strict=True):
                result.copy_(each)

        if self.moved != self.pool.moved:
            self.moved = self.pool.moved
            self.graphs.forget()
        if first is None:
            self.graphs(key, lambda: copy(compute()))
        else:
            copy(first)
        return results


class StaticShapeDecoder(ModelDecoder):
    """A `ModelDecoder` in static shapes: graphs compute projection and best pieces, too."""

    def __init__(self, model: StaticShapeModel, packed: torch.dtype | None = None) -> None:
        super().__init__(cast(Seq2Seq, model), packed)
        self.static = model

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Logits [b, N, V] after feeding tokens [b, N]."""
        hidden = self.static.decode(tokens.reshape(-1, 1), state.memory, state.cache)
        state.hidden = hidden.view(*tokens.shape, -1)  # [b, N, D]
        every = self.static.hidden.unflatten(0, (-1, tokens.shape[1]))[:, :, 0]  # [B, N, D]
        (self.every,) = self.static.run("logits", lambda: [self.logits(every)], self.project)
        self.last = self.every[: len(tokens)]
        return self.last

    def top_k(self, state: Any, logits: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """`candidates.top_k_in_blocks` of the logits of the last step; None for any others."""
        if logits is not self.last:
            return None
        results = self.static.run(
            "top_k", lambda: top_k_in_blocks(self.every, count), self.project, count
        )
        gains, ids = (each[: len(logits)].clone() for each in results)
        return gains, ids
