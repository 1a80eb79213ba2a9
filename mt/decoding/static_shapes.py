"""Decoding in few static shapes, so that a CUDA device replays a step instead of being told it.

A step of decoding is a hundred small kernels: launching them takes a fast device longer than
running them. Here sentences, source length and tokens are rounded up to a frame
(`mt.static_cache`), all that a step needs lies at fixed addresses, and each frame's step is
recorded once (`mt.replays`). When sentences leave, or more tokens come than a frame holds, the
batch moves to another one. Its plain twin is `mt.decoders.ModelDecoder` on the model itself; with
no recorder the same code runs anywhere, recording nothing.

Legend: B sentences of the frame, b real ones, N beams, D width, V vocabulary, K candidates.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from mt.decoding.candidates import top_k_in_blocks
from mt.decoding.decoders import ModelDecoder
from mt.interfaces import Cache, Memory, Seq2Seq, StaticCacheModel
from mt.models.modules.linear import packed_weights
from mt.models.modules.static_kv_cache import Frame, Rooms, StaticCache
from mt.runtime.cuda_graphs import CudaGraphs, GraphCache, GraphCapturer


def with_static_shapes(model: Seq2Seq, device: torch.device) -> Seq2Seq:
    """The model in frames where that pays and it can: on a CUDA device; else the model itself."""
    if device.type != "cuda" or not isinstance(model, StaticCacheModel) or not model.alike:
        return model
    return StaticShapeModel(model, device, CudaGraphs(device))


def inner_decoder(model: Seq2Seq, packed: torch.dtype | None) -> ModelDecoder:
    """What a search sees of a model that may be in frames."""
    if isinstance(model, StaticShapeModel):
        return StaticShapeDecoder(model, packed)
    return ModelDecoder(model, packed)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class ActiveBatch:
    """A batch in its frame: the cache that a search reorders and shrinks; see `contracts.Cache`."""

    frames: StaticShapeModel
    batch: int
    """Its number; only the last one that was started is there."""
    sentences: int
    """b."""
    length: int = 0
    """How many tokens were decoded."""

    def reorder(self, rows: Tensor) -> None:
        """Row r becomes what row `rows[r]` [b*N] was."""
        self.frames.of(self).reorder(rows)

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [b'], ascending, with their beams."""
        cache = self.frames.of(self)
        self.sentences = len(sentences)
        frame = cache.frame
        frame = Frame.around(self.sentences, frame.beams, frame.source, frame.tokens)
        cache.move(frame, sentences, self.length)

    def make_room(self) -> None:
        """Move to a frame of more tokens, when this one is full."""
        cache = self.frames.of(self)
        frame = cache.frame
        if self.length == frame.tokens:
            frame = Frame(frame.sentences, frame.beams, frame.source, 2 * frame.tokens)
            every = torch.arange(self.sentences, device=cache.past.device)
            cache.move(frame, every, self.length)


class StaticShapeModel:
    """A model (`Seq2Seq`) whose steps of decoding run in frames, one batch at a time.

    Args:
        model: the model, already packed as it shall infer.
        device: where it is.
        recorder: of steps; None: they run plainly.
        tell: where a warning goes.
    """

    def __init__(
        self, model: StaticCacheModel, device: torch.device, recorder: GraphCapturer | None,
        tell: Callable[[str], None] = _tell,
    ) -> None:  # fmt: skip
        self.model, self.rooms = model, Rooms(device)
        self.cache = StaticCache(self.rooms)
        self.replays = GraphCache(recorder, tell)
        self.shapes: dict[Hashable, list[tuple[torch.Size, torch.dtype]]] = {}
        self.batch, self.moved = 0, 0
        self.read: list[Tensor] = []
        """All that the model is made of: recordings read it, so it must outlive them."""
        self.addresses: list[tuple[int, int]] = []

    def encode(self, source: Tensor) -> Memory:
        """See `Seq2Seq`."""
        return self.model.encode(source)

    def start(self, memory: Memory, beams: int, max_length: int) -> ActiveBatch:
        """Place a batch in its first frame; the one before it is gone."""
        source = self.model.keys_values(memory, max_length)
        sentences, length = memory.valid.shape
        self.cache.load(Frame.around(sentences, beams, length, 1), source, memory.valid)
        self._look_at_the_model()
        self.batch += 1
        return ActiveBatch(self, self.batch, sentences)

    def _look_at_the_model(self) -> None:
        """Recordings of weights that lie elsewhere now are of no use."""
        module = cast(nn.Module, self.model)
        read = [*module.parameters(), *module.buffers(), *packed_weights(module)]
        addresses = [(id(each), 0 if each.is_mkldnn else each.data_ptr()) for each in read]
        if addresses != self.addresses:
            self.replays.forget()
        self.read, self.addresses = read, addresses

    def of(self, placed: ActiveBatch) -> StaticCache:
        """The cache, which holds this batch.

        Raises:
            RuntimeError: another one was started since.
        """
        if placed.batch != self.batch:
            raise RuntimeError("frames hold one batch at a time, and this is not the last one")
        return self.cache

    def decode(self, target: Tensor, memory: Memory, cache: Any = None) -> Tensor:
        """Hidden states [b*N, 1, D] after feeding target [b*N, 1]; see `Seq2Seq`."""
        if cache is None:
            return self.model.decode(target, memory)
        placed: ActiveBatch = cache
        placed.make_room()
        rows = self.of(placed).frame.rows
        tokens = self.rooms.view("tokens", (rows, 1), torch.long)
        tokens[: len(target)] = target
        none = cast(Memory, None)  # what is not in the cache would be recorded, too
        (self.hidden,) = self.run(
            "hidden", lambda: [self.model.decode(tokens, none, cast(Cache, self.cache))]
        )
        placed.length += 1
        return self.hidden[: len(target)]

    def run(
        self, name: str, compute: Callable[[], Iterable[Tensor]], *more: Hashable
    ) -> list[Tensor]:
        """What `compute` gives in this frame, at fixed addresses: the next run overwrites it.

        Args:
            name: of the results.
            compute: reads fixed addresses only; in one frame it always does the same, but for
            more: what else decides what it does.
        """
        key = name, self.cache.frame, *more
        found = None
        if key not in self.shapes:  # it is not known yet how much room the results take
            found = list(compute())
            self.shapes[key] = [(each.shape, each.dtype) for each in found]
        results = [
            self.rooms.view(f"{name} {number}", shape, dtype)
            for number, (shape, dtype) in enumerate(self.shapes[key])
        ]

        def work() -> None:
            for result, each in zip(results, compute(), strict=True):
                result.copy_(each)

        if self.moved != self.rooms.moved:
            self.moved = self.rooms.moved
            self.replays.forget()
        if found is None:
            self.replays(key, work)
        else:
            for result, each in zip(results, found, strict=True):
                result.copy_(each)
        return results

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """See `Seq2Seq`."""
        return self.model.attention(source, target)

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """See `Seq2Seq`."""
        return self.model.attentions(source, target)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """See `Seq2Seq`."""
        return self.model.output()

    def blocks(self) -> Iterable[nn.Module]:
        """See `Seq2Seq`."""
        return self.model.blocks()


class StaticShapeDecoder(ModelDecoder):
    """A `ModelDecoder` of a model in frames: projection and best pieces are recorded, too."""

    def __init__(self, model: StaticShapeModel, packed: torch.dtype | None = None) -> None:
        super().__init__(model, packed)
        self.frames = model

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Logits [b, N, V] after feeding tokens [b, N]."""
        hidden = self.frames.decode(tokens.reshape(-1, 1), state.memory, state.cache)
        state.hidden = hidden.view(*tokens.shape, -1)  # [b, N, D]
        every = self.frames.hidden.unflatten(0, (-1, tokens.shape[1]))[:, :, 0]  # [B, N, D]
        (self.every,) = self.frames.run("logits", lambda: [self.logits(every)], self.project)
        self.told = self.every[: len(tokens)]
        return self.told

    def best(self, state: Any, logits: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """`candidates.top_k_in_blocks` of the logits of the last step; None for any others."""
        if logits is not self.told:
            return None
        found = self.frames.run(
            "best", lambda: top_k_in_blocks(self.every, count), self.project, count
        )
        gains, ids = (each[: len(logits)].clone() for each in found)
        return gains, ids
