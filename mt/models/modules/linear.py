"""Linear maps whose matrix products come in few sizes on a CPU.

In bf16 a CPU's library compiles a kernel for each size of a product and keeps about a megabyte of
it. Sentences make thousands of sizes, so that compiling would take a good part of the time and
hundreds of kernels would be held. Rows rounded up to a multiple of 128 make a few dozen.

For inference weights are packed once into the layout of oneDNN's kernels, in fp32 too: they use
all of a CPU's vector units whoever made it, and the result of a row does not depend on how many
rows there are, so that batching cannot change a translation. On another device packing is casting
once, instead of at each product.
"""

from __future__ import annotations

import functools
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEP = 128
"""Rows of a product come in multiples of this."""
MANY = 512
"""More rows than this, as an encoder has, come packed in multiples of STEP, for kernels are kept
for each number; fewer are few numbers already (`mt.lines.batch_size`)."""
ROWS = 256
"""For how many rows a packed weight is laid out; others go as well."""


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x [..., K] as a matrix [P, K] of that type.

    For bf16 on a CPU P is a multiple of STEP, with zeros in the rows added.
    """
    return _in_steps(x, dtype, STEP if x.device.type == "cpu" and dtype == torch.bfloat16 else 1)


def _in_steps(x: Tensor, dtype: torch.dtype, step: int) -> Tensor:
    """x [..., K] as a matrix [P, K] of that type, P a multiple of `step`, zeros in rows added."""
    rows = x.numel() // x.size(-1)
    matrix = x.new_empty(-(-rows // step) * step, x.size(-1), dtype=dtype)
    matrix[:rows] = x.reshape(rows, x.size(-1))
    matrix[rows:] = 0
    return matrix


class _RoundedLinear(torch.autograd.Function):
    """x W^T + b in the type of the autocast, forward and backward with rows rounded up."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        dtype = torch.get_autocast_dtype("cpu")
        matrix, w = rounded(x, dtype), weight.to(dtype)
        ctx.save_for_backward(matrix, w)
        ctx.has_bias = bias is not None
        product = (
            torch.mm(matrix, w.t()) if bias is None else torch.addmm(bias.to(dtype), matrix, w.t())
        )
        return product[: x.numel() // x.size(-1)].view(*x.shape[:-1], len(w))

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        matrix, w = ctx.saved_tensors
        slope = rounded(gradient, w.dtype)
        rows = gradient.numel() // len(w)
        of_x = (slope @ w)[:rows].view(*gradient.shape[:-1], w.size(1))
        of_bias = slope.sum(0, dtype=torch.float32) if ctx.has_bias else None
        return of_x, slope.t() @ matrix, of_bias


def trains_in_bf16(device: torch.device) -> bool:
    """Whether products are taken in bf16 on a CPU, with gradients."""
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
    product: Tensor = _RoundedLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return product


@functools.cache
def can_pack() -> bool:
    """Whether this torch and this processor have the kernels; they are what compiled code calls."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        weight, x = torch.eye(16), torch.ones(1, 16)
        return torch.equal(Packed(weight, None, torch.float32)(x), x)
    except (AttributeError, RuntimeError):
        return False


class Packed:
    """A weight [N, K] and its bias, packed for products in one type; no gradients."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.laid_out, self.dtype = weight.device.type == "cpu", dtype
        with torch.no_grad():
            self.weight = weight.detach().to(dtype)
            self.bias = None if bias is None else bias.detach().to(dtype)
            if self.laid_out:
                self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """x [..., K] -> [..., N] in the packed type; `activation` may be `relu`."""
        if not self.laid_out:
            linear = F.linear(x.to(self.dtype), self.weight, self.bias)
            return F.relu(linear) if activation == "relu" else linear
        rows = x.numel() // x.size(-1)
        if rows > MANY and rows % STEP:
            product = self._product(_in_steps(x, self.dtype, STEP), activation)
            return product[:rows].view(*x.shape[:-1], -1)
        return self._product(x.to(self.dtype), activation)

    def _product(self, x: Tensor, activation: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, activation, [], ""
        )
        return product


class Linear(nn.Linear):
    """torch's linear layer, by `linear`; packed when it shall only infer."""

    packed: Packed | None = None
    once = False
    """See `once`."""

    def pack(self, dtype: torch.dtype | None) -> None:
        """Infer with a packed copy of the weights of now; None: with the weights themselves."""
        self.packed = None if dtype is None else Packed(self.weight, self.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        if self.packed is not None and not torch.is_grad_enabled():
            return self.packed(x)
        return linear(x, self.weight, self.bias)

    def rectified(self, x: Tensor) -> Tensor:
        """max(0, x W^T + b), [..., K] -> [..., N]."""
        if self.packed is not None and not torch.is_grad_enabled():
            return self.packed(x, "relu")
        return F.relu(self(x))


def once(part: nn.Module) -> None:
    """Mark what is computed once a sentence, and packed infers in fp32 whatever the rest does.

    It is little work, and all tokens of the translation depend on it. (On a CPU: elsewhere fp32
    takes many times as long, and the kernels of attention do not take it.)
    """
    for module in part.modules():
        if isinstance(module, Packable):
            module.once = True


@runtime_checkable
class Packable(Protocol):
    """A part of a model that infers faster when packed."""

    once: bool

    def pack(self, dtype: torch.dtype | None) -> None:
        """Pack the weights of now; None: undo it."""


def pack(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Pack every part of a model that can be; None: undo it.

    Whoever changes weights afterwards packs again.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    for module in model.modules():
        if isinstance(module, Packable):
            exact = dtype is not None and module.once and on_cpu
            module.pack(torch.float32 if exact else dtype)


def packed_weights(model: nn.Module) -> list[Tensor]:
    """What all packed parts of a model hold."""
    packs = [getattr(module, "packed", None) for module in model.modules()]
    held = [each for pack in packs if isinstance(pack, Packed) for each in (pack.weight, pack.bias)]
    return [each for each in held if each is not None]
