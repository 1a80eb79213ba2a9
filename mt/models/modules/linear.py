"""Linear layers with few matrix sizes on a CPU, and weights packed for inference.

In bf16 oneDNN compiles a kernel for each size of a product and keeps about a megabyte of it.
Sentences make thousands of sizes: compilation would take a good part of the time, and hundreds of
kernels would stay in memory. With the rows padded to a multiple of 128 a few dozen remain.

For inference weights are packed into the layout of oneDNN's kernels, in fp32 too. These kernels use
all vector units of any CPU, and the result of a row does not depend on the number of rows, so
batching cannot change a translation. On other devices packing is one cast instead of one per
product.

Legend: P rows, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.runtime import torch_private
from mt.runtime.torch_private import can_pack as can_pack

ROW_MULTIPLE = 128
"""The rows of a product are padded to a multiple of this."""
MANY_ROWS = 512
"""Packed products of more rows, as in an encoder, are padded: a kernel is kept for each number of
rows. Fewer rows come in few numbers anyway."""
PACKED_ROWS = 256
"""The number of rows that the layout of a packed weight is optimised for."""


def pad_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x [..., K] as a matrix [P, K] of that type; for bf16 on a CPU with padded rows of zeros."""
    padded = x.device.type == "cpu" and dtype == torch.bfloat16
    return _pad_rows(x, dtype, ROW_MULTIPLE if padded else 1)


def _pad_rows(x: Tensor, dtype: torch.dtype, multiple: int) -> Tensor:
    rows = x.numel() // x.size(-1)
    matrix = x.new_empty(-(-rows // multiple) * multiple, x.size(-1), dtype=dtype)
    matrix[:rows] = x.reshape(rows, x.size(-1))
    matrix[rows:] = 0
    return matrix


class _PaddedLinear(torch.autograd.Function):
    """x W^T + b in the type of the autocast, forward and backward with padded rows."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        dtype = torch.get_autocast_dtype("cpu")
        matrix, w = pad_rows(x, dtype), weight.to(dtype)
        ctx.save_for_backward(matrix, w)
        ctx.has_bias = bias is not None
        product = (
            torch.mm(matrix, w.t()) if bias is None else torch.addmm(bias.to(dtype), matrix, w.t())
        )
        return product[: x.numel() // x.size(-1)].view(*x.shape[:-1], len(w))

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        matrix, w = ctx.saved_tensors
        slope = pad_rows(gradient, w.dtype)
        rows = gradient.numel() // len(w)
        of_x = (slope @ w)[:rows].view(*gradient.shape[:-1], w.size(1))
        of_bias = slope.sum(0, dtype=torch.float32) if ctx.has_bias else None
        return of_x, slope.t() @ matrix, of_bias


def trains_in_bf16(device: torch.device) -> bool:
    """Whether products on a CPU are in bf16, with gradients."""
    return (
        device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., K] times weight [N, K], plus bias [N]: [..., N], as `F.linear`, its plain twin."""
    if not trains_in_bf16(x.device) or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    product: Tensor = _PaddedLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return product


class PrepackedWeight:
    """A weight [N, K] and its bias, packed for products in one type; no gradients."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.on_cpu, self.dtype = weight.device.type == "cpu", dtype
        with torch.no_grad():
            self.weight = weight.detach().to(dtype)
            self.bias = None if bias is None else bias.detach().to(dtype)
            if self.on_cpu:
                self.weight = torch_private.pack_weight(self.weight, PACKED_ROWS)

    def copy_(self, other: PrepackedWeight) -> None:
        """Take the values of another of the same sizes and type."""
        self.weight.copy_(other.weight)
        if self.bias is not None:
            self.bias.copy_(cast(Tensor, other.bias))

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """x [..., K] -> [..., N] in the packed type; `activation` may be `relu`."""
        rows = x.numel() // x.size(-1)
        if self.on_cpu and rows > MANY_ROWS and rows % ROW_MULTIPLE:
            matrix = _pad_rows(x, self.dtype, ROW_MULTIPLE)
            product = torch_private.packed_linear(matrix, self.weight, self.bias, activation)
            return product[:rows].view(*x.shape[:-1], -1)
        return torch_private.packed_linear(x.to(self.dtype), self.weight, self.bias, activation)


class Linear(nn.Linear):
    """torch's linear layer by `linear`, which can be packed for inference."""

    packed: PrepackedWeight | None = None
    keep_fp32 = False
    """See `keep_fp32`."""

    def pack(self, dtype: torch.dtype | None) -> None:
        """Infer with a packed copy of the present weights; None: with the weights themselves."""
        self.packed = None if dtype is None else PrepackedWeight(self.weight, self.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        if self.packed is not None and not torch.is_grad_enabled():
            return self.packed(x)
        return linear(x, self.weight, self.bias)

    def relu(self, x: Tensor) -> Tensor:
        """max(0, x W^T + b), [..., K] -> [..., N]."""
        if self.packed is not None and not torch.is_grad_enabled():
            return self.packed(x, "relu")
        return F.relu(self(x))


@runtime_checkable
class Packable(Protocol):
    """A part of a model that infers faster when packed."""

    keep_fp32: bool

    def pack(self, dtype: torch.dtype | None) -> None:
        """Pack the present weights; None: undo it."""


def keep_fp32(part: nn.Module) -> None:
    """Let parts that run once per sentence infer in fp32 on a CPU, however the rest is packed.

    They are little work, and all tokens of the translation depend on them. Elsewhere fp32 is many
    times as slow, and the attention kernels do not accept it.
    """
    for module in part.modules():
        if isinstance(module, Packable):
            module.keep_fp32 = True


def pack(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Pack every packable part of a model; None: undo it. Repeat it when weights change."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    for module in model.modules():
        if isinstance(module, Packable):
            exact = dtype is not None and module.keep_fp32 and on_cpu
            module.pack(torch.float32 if exact else dtype)


def repack(
    model: nn.Module, dtype: torch.dtype, places: Mapping[nn.Module, PrepackedWeight]
) -> None:
    """`pack`, but into earlier packed weights: captured graphs read them at their addresses."""
    pack(model, dtype)
    for module, place in places.items():
        place.copy_(cast(PrepackedWeight, module.packed))
        module.packed = cast(Any, place)


def packed_modules(model: nn.Module) -> dict[nn.Module, PrepackedWeight]:
    """The packed parts of a model."""
    packs = {module: getattr(module, "packed", None) for module in model.modules()}
    return {module: each for module, each in packs.items() if isinstance(each, PrepackedWeight)}


def packed_weights(model: nn.Module) -> list[Tensor]:
    """The tensors of all packed parts of a model."""
    both = [(each.weight, each.bias) for each in packed_modules(model).values()]
    return [tensor for pair in both for tensor in pair if tensor is not None]
