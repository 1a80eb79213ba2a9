"""Every use of torch's private functions, each with a fallback for a torch that lacks it.

`tests/runtime/test_torch_private.py` compares each with public functions.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@functools.cache
def can_pack() -> bool:
    """Whether this torch and this CPU have oneDNN's packed linear kernels."""
    try:
        weight, x = torch.eye(16), torch.ones(1, 16)
        packed = pack_weight(weight, 1)
        return packed.is_mkldnn and torch.equal(packed_linear(x, packed, None, "none"), x)
    except (AttributeError, RuntimeError):
        return False


def pack_weight(weight: Tensor, rows: int) -> Tensor:
    """A weight [N, K] in the layout of oneDNN's kernels for products of `rows` rows.

    The weight itself is the fallback. Compiled code of torch calls the same kernels.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    ):
        return weight
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    except RuntimeError:  # this CPU has no kernel for the type: bf16 needs AVX-512
        return weight
    return packed


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """x [P, K] times a weight of `pack_weight`, plus bias [N]; `activation`: `relu` or `none`."""
    if weight.is_mkldnn:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
        return product
    product = F.linear(x, weight, bias)
    return F.relu(product) if activation == "relu" else product


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """Compute without oneDNN's kernels, of which it keeps one for each of 1,024 sizes.

    `torch.backends.mkldnn.flags` also sets the precision of products, with a warning.
    """
    enabled = getattr(torch._C, "_get_mkldnn_enabled", bool)()
    if not enabled:
        yield
        return
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def gnu_openmp() -> Any:
    """Return the library in which torch finds GNU OpenMP; None if it uses another OpenMP.

    Other packages bring copies of their own, whose threads are none of torch's.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)
        library.GOMP_parallel.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint,
        ]  # fmt: skip
        library.GOMP_parallel.restype = None
    except (OSError, AttributeError):
        return None
    return library


def skips_by_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer skips its update on the device where its `found_inf` is 1."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


@contextlib.contextmanager
def scaled_step(
    optimizer: torch.optim.Optimizer, found_inf: Tensor, grad_scale: Tensor | None
) -> Iterator[None]:
    """Let a fused optimizer skip its update where `found_inf` is 1, and divide its gradients."""
    given = {"found_inf": found_inf} | ({} if grad_scale is None else {"grad_scale": grad_scale})
    for name, value in given.items():
        setattr(optimizer, name, value)
    try:
        yield
    finally:
        for name in given:
            delattr(optimizer, name)


def lerp_all(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    """Move each tensor towards its end by the share `weight` [], in place."""
    if weight.device.type != "cpu" and hasattr(torch, "_foreach_sub"):
        lerp_all_fused(tensors, ends, weight)
        return
    for tensor, end in zip(tensors, ends, strict=True):
        tensor.lerp_(end, weight)


def lerp_all_fused(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    """`lerp_all` in three operations over all tensors.

    `_foreach_lerp_` with a weight that is on the device launches a kernel for each tensor.
    """
    ways = torch._foreach_sub(list(ends), list(tensors))
    torch._foreach_mul_(ways, weight)
    torch._foreach_add_(list(tensors), ways)


def num_compilations() -> int:
    """The number of graphs that torch.compile has compiled in this process; 0 if unknown."""
    if "torch._dynamo" not in sys.modules:
        return 0
    try:
        from torch._dynamo.utils import counters
    except ImportError:
        return 0
    return int(counters["stats"]["unique_graphs"])
