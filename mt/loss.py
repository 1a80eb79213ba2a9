"""Projection to the vocabulary and label-smoothed cross-entropy, never all logits at once.

Legend: P real positions, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 512
"""Rows whose logits are held at one time: 512 x 32,000 floats are 64 MB."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Forms the gradients while a chunk's logits are at hand, so they are computed only once."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
        smoothing: float, dtype: torch.dtype, ignored: int | None,
    ) -> Tensor:  # fmt: skip
        wanted = any(ctx.needs_input_grad[:3])
        w = weight.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_weight = torch.zeros_like(weight) if wanted else None
        grad_bias = torch.zeros_like(bias) if wanted and bias is not None else None
        # The sum of all logits of a row is one dot product, not a pass over V logits.
        weight_sum = weight.sum(0) if smoothing else None
        bias_sum = bias.sum() if smoothing and bias is not None else 0.0
        for start in range(0, len(labels), CHUNK):
            rows = slice(start, start + CHUNK)
            h, y = hidden[rows].to(dtype), labels[rows, None]
            logits = (h @ w.t()).float()  # [CHUNK, V]
            if bias is not None:
                logits += bias
            normaliser = logits.logsumexp(-1, keepdim=True)
            chosen = logits.gather(1, y)
            losses = normaliser - (1 - smoothing) * chosen
            total += (losses if ignored is None else losses * (y != ignored)).sum()
            if weight_sum is not None:
                sums = hidden[rows].float() @ weight_sum.float() + bias_sum
                sums = sums if ignored is None else sums * (y[:, 0] != ignored)
                total -= smoothing / weight.size(0) * sums.sum()
            if not wanted:
                continue
            slope = logits.sub_(normaliser).exp_()  # softmax - smoothed target, [CHUNK, V]
            if smoothing:
                slope -= smoothing / weight.size(0)
            slope.scatter_add_(1, y, torch.full_like(chosen, smoothing - 1))
            if ignored is not None:
                slope *= y != ignored
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(dtype)
            grad_hidden[rows] = slope @ w  # type: ignore[index]
            grad_weight += slope.t() @ h  # type: ignore[operator]
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        parts = [None if g is None else g * gradient.to(g.dtype) for g in ctx.gradients]
        ctx.gradients = ()
        return *parts, None, None, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float = 0.0,
    ignored: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum over P positions of the cross-entropy with smoothed labels (section 5.4).

    A label y stands for the distribution (1 - smoothing) onehot(y) + smoothing / V
    (Szegedy et al. 2015). Products are taken in the autocast type, sums in fp32.

    Args:
        hidden: [P, D] of real positions only, or of all with `ignored`.
        weight: [V, D]. bias: [V] or None.
        labels: [P] ids.
        smoothing: share of the probability spread over the vocabulary.
        ignored: a label whose positions count nothing.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if dtype not in (torch.bfloat16, torch.float16):
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
    with torch.autocast(device, enabled=False):
        total: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, smoothing, dtype, ignored
        )
    return total


def plain_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """What `linear_cross_entropy` must equal, written as torch's own loss over all logits."""
    logits = F.linear(hidden, weight, bias)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
