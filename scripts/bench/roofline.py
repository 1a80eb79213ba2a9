"""Count the kernels, FLOPs and bytes of one update and one decoding step; predict their time.

    python scripts/bench/roofline.py configs/iwslt14_de_en.yaml
    python scripts/bench/roofline.py RECIPE --tflops 790 --bandwidth 4.3 --gap 1.3 --length 27

No GPU is needed: the operations run on tensors without data, on the path of a CUDA device. The
classes of operations, and what a card reaches of its peak in each, are in CLASSES. A prediction
has the trust of its ceilings: measure before you believe it.
"""

# ruff: noqa: E402

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import torch
from bench import harness
from bench.updates import build_step
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mt.config import recipe as recipes
from mt.decoding.decoders import DecoderState
from mt.decoding.static_shapes import StaticShapeDecoder, StaticShapeModel
from mt.interfaces import Batch
from mt.models.modules import attention
from mt.special_tokens import PAD
from mt.training import losses
from mt.training.step import accumulate_micro_batch

CLASSES = {
    "products": 0.65, "attention": 0.15, "pointwise": 0.85, "reductions": 0.85, "copies": 0.85,
    "optimizer": 0.85,
}  # fmt: skip
"""Share of the peak that a card reaches: of its FLOPs for products and attention, whose tiles are
larger than sentences, and of its bandwidth for the rest."""
ALIASES = {
    "view", "t", "transpose", "expand", "select", "slice", "split", "unbind", "alias", "detach",
    "permute", "unsqueeze", "squeeze", "as_strided", "_unsafe_view", "split_with_sizes",
    "unflatten", "lift_fresh", "_reshape_alias", "empty", "empty_like", "new_empty", "bernoulli_",
    "div_",
}  # fmt: skip
"""Operations that launch no kernel; the last two are parts of dropout, which a device fuses."""
REDUCTIONS = ("norm", "softmax", "sum", "mean", "amax", "logsumexp", "topk", "sort", "cumsum")
COPIES = (
    "copy", "clone", "index", "gather", "embedding", "cat", "scatter", "fill", "zeros", "ones",
    "full", "arange",
)  # fmt: skip
OPTIMIZER_BYTES = 4 * (1 + 4 + 4) + 4
"""Bytes a weight and update: the norm reads its gradient; AdamW reads weight, gradient and two
moments and writes three of them back; clearing writes the gradient."""


@dataclass
class Part:
    """What one class of operations does."""

    kernels: int = 0
    flops: int = 0
    bytes: int = 0


@dataclass
class Counter(TorchDispatchMode):
    """Counts the operations that run within, by class."""

    parts: dict[str, Part] = field(default_factory=lambda: {name: Part() for name in CLASSES})
    paused: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation._schema.name.removeprefix("aten::")
        if not (self.paused or name in ALIASES or name.startswith("prim::")):
            packet = getattr(operation, "overloadpacket", None)
            flops = 0
            if packet in flop_registry:
                flops = flop_registry[packet](*args, **(kwargs or {}), out_val=result)
            tensors = [each for each in tree_leaves((args, kwargs, result)) if is_tensor(each)]
            self.add(class_of(name, packet), flops, sum(map(num_bytes, tensors)))
        return result

    def add(self, name: str, flops: int, size: int, kernels: int = 1) -> None:
        """Count kernels of a class."""
        part = self.parts[name]
        part.kernels, part.flops, part.bytes = (
            part.kernels + kernels, part.flops + flops, part.bytes + size
        )  # fmt: skip

    @property
    def kernels(self) -> int:
        """All kernels."""
        return sum(part.kernels for part in self.parts.values())


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def class_of(name: str, packet: Any) -> str:
    """Return the class of an operation."""
    if packet in flop_registry:
        return "products"
    if any(each in name for each in REDUCTIONS):
        return "reductions"
    return "copies" if any(each in name for each in COPIES) else "pointwise"


# ------------------------------------------------------------------- the path of a device


class _Attention(torch.autograd.Function):
    """The fused attention of a device: one kernel forward, two backward; its FLOPs and bytes."""

    counter: Counter

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        _Attention.count(1, query, key, value)
        return torch.empty_like(query)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        _Attention.count(2, *ctx.saved_tensors)
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors)

    @staticmethod
    def count(kernels: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        products = 2 if kernels == 1 else 5  # of queries, keys, values and their gradients
        flops = products * 2 * query.numel() * key.size(2)
        size = products * sum(map(num_bytes, (query, key, value)))
        _Attention.counter.add("attention", flops, size, kernels)


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False,
) -> Tensor:  # fmt: skip
    """Stand for `F.scaled_dot_product_attention`, which casts to the autocast type."""
    half = [each.to(torch.bfloat16) for each in (query, key, value)]
    return _Attention.apply(*half)  # type: ignore[no-untyped-call]


@contextmanager
def device_path(counter: Counter) -> Iterator[None]:
    """Run mt as on a CUDA device: fused attention, no gathering of real positions."""
    _Attention.counter = counter
    kernels = SimpleNamespace(
        scaled_dot_product_attention=fused_attention, dropout=nn.functional.dropout
    )
    with (
        mock.patch.object(torch.compiler, "is_compiling", return_value=True),
        mock.patch.object(attention, "F", kernels),
        mock.patch.object(losses, "CHUNK", losses.CHUNK * losses.DEVICE_CHUNKS),
        # Graphs read weights at their addresses; these have none.
        mock.patch.object(StaticShapeModel, "_drop_graphs_if_weights_moved"),
        mock.patch.object(
            losses, "select_real_positions", lambda x, y: (x.flatten(0, 1), y.flatten(), PAD)
        ),
    ):  # fmt: skip
        yield


def without_data(module: nn.Module, half: bool = False) -> None:
    """Replace all parameters and buffers by fake ones, in bf16 if `half`; tied ones stay tied."""
    fakes: dict[int, Tensor] = {}
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, value in store.items():
                if value is None:
                    continue
                if id(value) not in fakes:
                    in_half = half and value.is_floating_point()
                    dtype = torch.bfloat16 if in_half else value.dtype
                    empty = torch.empty(value.shape, dtype=dtype)
                    fakes[id(value)] = (
                        nn.Parameter(empty) if isinstance(value, nn.Parameter) else empty
                    )
                store[name] = fakes[id(value)]  # type: ignore[assignment]


# -------------------------------------------------------------------------------- counting


def count_update(recipe: Any, length: int, vocabulary: int | None = None) -> tuple[Counter, int]:
    """Return the counts of one update with one micro-batch, and its target tokens."""
    step, counter = fake_step(recipe, vocabulary), Counter()
    rows = max(1, recipe.batching.tokens // length)
    with FakeTensorMode(allow_non_fake_inputs=True):
        without_data(step)
        step.train()
        ids, lengths = torch.ones(rows, length + 1, dtype=torch.long), torch.ones(rows).long()
        batch = Batch(ids[:, :length], ids, lengths, lengths, lengths)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        for parameter in step.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with device_path(counter), counter:
            accumulate_micro_batch(step, batch, {"loss": torch.ones(())}, scaler)
    weights = sum(each.numel() for each in step.parameters())
    # The norm and the fused update take a kernel for some dozens of tensors at a time.
    kernels = 2 * (1 + len(list(step.parameters())) // 50) + 6
    counter.add("optimizer", 0, OPTIMIZER_BYTES * weights, kernels)
    return counter, rows * length


def count_decoding_step(
    recipe: Any, sentences: int, beams: int, length: int, vocabulary: int | None = None
) -> Counter:
    """Return the counts of one step of a beam search, at half of the length."""
    step, counter = fake_step(recipe, vocabulary), Counter()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        without_data(step, half=True)
        static = StaticShapeModel(step.model.eval(), torch.device("cpu"), None)
        decoder = StaticShapeDecoder(static)
        counter.paused = True
        with device_path(counter), counter, torch.autocast("cpu", torch.bfloat16):
            source = torch.ones(sentences, length, dtype=torch.long)
            memory = static.encode(source)
            state = DecoderState(memory, static.start(memory, beams, length))
            tokens = torch.ones(sentences, beams, dtype=torch.long)
            for number in range(max(2, length // 2)):
                counter.paused = number + 1 < max(2, length // 2)
                logits = decoder.step(state, tokens)
            logits.float().log_softmax(-1).topk(2 * beams)
    return counter


def fake_step(recipe: Any, vocabulary: int | None) -> Any:
    size = vocabulary or recipe.vocabulary.size
    sizes = SimpleNamespace(joint=True, source_size=size, target_size=size)
    return build_step(recipe, sizes, "bf16")


def predict_ms(counter: Counter, tflops: float, bandwidth: float, gap: float) -> dict[str, float]:
    """Return the milliseconds of each class, and of the gaps between kernels.

    Args:
        tflops: products in bf16, TFLOP/s. bandwidth: TB/s. gap: microseconds between kernels.
    """
    found = {}
    for name, part in counter.parts.items():
        by_flops = part.flops / (CLASSES[name] * tflops * 1e9)
        found[name] = max(by_flops, part.bytes / (0.85 * bandwidth * 1e9))
    return {**found, "gaps": counter.kernels * gap / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--length", type=int, default=27, help="tokens of a sentence")
    parser.add_argument("--tflops", type=float, default=790, help="of products in bf16")
    parser.add_argument("--bandwidth", type=float, default=4.3, help="TB/s of copies")
    parser.add_argument("--gap", type=float, default=1.3, help="microseconds between kernels")
    parser.add_argument("--sentences", type=int, default=970, help="of a batch when decoding")
    given = parser.parse_args()
    recipe, _ = recipes.load(given.recipe)
    update, tokens = count_update(recipe, given.length)
    beams = getattr(recipe.search, "beams", 1)
    step = count_decoding_step(recipe, given.sentences, beams, given.length)
    for title, counter in (("update", update), ("decoding step", step)):
        times = predict_ms(counter, given.tflops, given.bandwidth, given.gap)
        print(harness.table(f"{title} | kernels | GFLOP | GB | ms, predicted"))
        for name, part in counter.parts.items():
            figures = f"{part.kernels:,} | {part.flops / 1e9:,.0f} | {part.bytes / 1e9:.2f}"
            print(f"| {name} | {figures} | {times[name]:.2f} |")
        total = sum(times.values())
        print(f"| gaps | {counter.kernels:,} | | | {times['gaps']:.2f} |")
        print(f"| **sum** | | | | **{total:.2f}** |")
        if counter is update:
            print(f"\n{tokens:,} target tokens: {tokens / total:,.0f} thousand a second\n")
        else:
            print(
                f"\n{given.sentences} sentences of {given.length} tokens, {beams} beams: ", end=""
            )
            print(f"{given.sentences / (total * given.length / 1e3):,.0f} sentences a second")


if __name__ == "__main__":
    main()
