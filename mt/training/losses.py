"""Losses of the projection to the vocabulary, without all logits in memory.

`chunked_loss` projects a few hundred positions at a time and forms the gradients in the same
pass. A loss gives it the derivative by the logits of a chunk.

Legend: P real positions, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mt.models.modules.linear import pad_rows
from mt.special_tokens import PAD

CHUNK = 512
"""Rows whose logits a CPU holds at one time: 512 x 32,000 in bf16 are 32 MB."""
DEVICE_CHUNKS = 64
"""A GPU takes 64 chunks at once, 2 GB of 32,000 logits in bf16: small products leave it idle."""

LogitGradient = Callable[[Tensor, slice, bool], tuple[Tensor, Tensor | float]]
"""Called with the logits [R, V] of a chunk, the positions of the chunk, and whether the derivative
of the loss by the logits is needed, which then replaces them. R may have rows beyond the
positions, whose derivative must be 0. Returns the loss [] and another sum [] to report."""
Gradients = list[Tensor | None]
"""Of hidden states [P, D], weight [V, D] and bias [V]."""


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, logit_gradient: LogitGradient,
        passes: int, smoothing: float, kept: Tensor | None, dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        needed = any(ctx.needs_input_grad[:3])
        parameters = hidden, weight, bias
        gradients: Gradients = [
            torch.zeros_like(t) if needed and t is not None else None for t in parameters
        ]
        w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
        parts = hidden.chunk(passes)
        chunk = (CHUNK if hidden.device.type == "cpu" else DEVICE_CHUNKS * CHUNK) // passes
        loss, other = (torch.zeros((), device=hidden.device) for _ in range(2))
        logits = w.new_empty(0)
        for start in range(0, len(parts[0]), chunk):
            places = slice(start, start + chunk)
            rows = [part[places] for part in parts]
            x = pad_rows(rows[0] if passes == 1 else torch.cat(rows), dtype)  # one copy, not two
            if len(logits) < len(x):  # the first chunk is the largest: one buffer serves for all
                logits = w.new_empty(len(x), len(w))
            z = logits[: len(x)]
            torch.mm(x, w.t(), out=z) if b is None else torch.addmm(b, x, w.t(), out=z)
            chunk_loss, chunk_other = logit_gradient(z, places, needed)
            loss += chunk_loss
            other += chunk_other
            if needed:
                _add_gradients(gradients, passes, places, z, x, w)
        if smoothing:
            loss -= _uniform_part(gradients, hidden, weight, bias, kept, smoothing)
        ctx.gradients = gradients
        ctx.mark_non_differentiable(other)
        return loss, other

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor):  # type: ignore[no-untyped-def]
        parts = [None if g is None else g.mul_(gradient.to(g.dtype)) for g in ctx.gradients]
        ctx.gradients = ()
        return *parts, None, None, None, None, None


def chunked_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, logit_gradient: LogitGradient,
    passes: int = 1, smoothing: float = 0.0, kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sum a loss over P positions; the forward pass forms the gradients.

    Products are taken in the autocast type, sums in fp32.

    Args:
        hidden: [passes * P, D], one pass over the positions after the other.
        weight: [V, D]. bias: [V] or None.
        smoothing: share of each label spread evenly over V, on top of `logit_gradient`.
        kept: [passes * P, 1], 1 where a position counts; None: all do.

    Returns:
        The loss [] and the other sum [], through which no gradient flows.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if dtype not in (torch.bfloat16, torch.float16):
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
    arguments: Any = hidden, weight, bias, logit_gradient, passes, smoothing, kept, dtype
    with torch.autocast(device, enabled=False):
        loss, other = _ChunkedLoss.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss, other


def _add_gradients(
    gradients: Gradients, passes: int, places: slice, slope: Tensor, x: Tensor, w: Tensor
) -> None:
    """Add the gradients of a chunk: slope [R, V], x [R, D]."""
    hidden, weight, bias = gradients
    assert hidden is not None
    assert weight is not None
    by_hidden = slope @ w  # [R, D]
    for number, part in enumerate(hidden.chunk(passes)):
        here = part[places]
        here[:] = by_hidden[number * len(here) : (number + 1) * len(here)]
    weight += slope.t() @ x
    if bias is not None:
        bias += slope.sum(0, dtype=bias.dtype)


def _uniform_part(
    gradients: Gradients, hidden: Tensor, weight: Tensor, bias: Tensor | None,
    kept: Tensor | None, smoothing: float,
) -> Tensor:  # fmt: skip
    """Return the part of the loss [] that smoothing / V takes off each label; add its gradients.

    Its derivative is the same for every logit, so sums of rows suffice in place of P x V.
    """
    share = smoothing / len(weight)
    real = hidden if kept is None else hidden * kept
    count = len(hidden) if kept is None else kept.sum()
    row, column = real.sum(0, dtype=torch.float32), weight.sum(0, dtype=torch.float32)  # [D] each
    part = row @ column
    if bias is not None:
        part = part + count * bias.sum(dtype=torch.float32)
    for gradient, sums in zip(gradients, (column, row, count), strict=True):
        if gradient is not None:
            each = sums * kept if gradient is gradients[0] and kept is not None else sums
            gradient -= share * each
    return share * part


def select_real_positions(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int | None]:
    """Select the positions with labels from n passes over a batch: [n*B, T, D] and [B, T].

    Returns:
        Hidden states [n*P, D], labels [P], and the label to ignore, if there is one.
    """
    passes = len(hidden) // len(labels)
    if hidden.device.type != "cpu":
        # A gather would wait for its size: padding goes along and counts nothing.
        return hidden.flatten(0, 1), labels.flatten(), PAD
    at = (labels != PAD).flatten().nonzero()[:, 0]  # its gradient is cheaper than a mask's
    every = torch.cat([at + i * labels.numel() for i in range(passes)]) if passes > 1 else at
    return hidden.flatten(0, 1).index_select(0, every), labels.flatten().index_select(0, at), None


def _real(labels: Tensor, ignored: int | None, dtype: torch.dtype) -> Tensor | None:
    """Return [P, 1], 1 where a label counts; None when all do."""
    return None if ignored is None else (labels != ignored)[:, None].to(dtype)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
    smoothing: float = 0.0, ignored: int | None = None,
) -> Tensor:  # fmt: skip
    """Sum the cross-entropy with smoothed labels over P positions (section 5.4).

    A label y becomes the distribution (1 - smoothing) onehot(y) + smoothing / V
    (Szegedy et al. 2015).

    Args:
        hidden: [P, D]. weight: [V, D]. bias: [V] or None. labels: [P] ids.
        smoothing: share of the probability spread over the vocabulary.
        ignored: label of the positions that do not count.
    """
    kept = _real(labels, ignored, hidden.dtype)
    # The labels' places in a flat buffer: scatter_add_ is slow in bf16 on a CPU.
    label_at = torch.arange(len(labels), device=hidden.device)

    def logit_gradient(z: Tensor, places: slice, needed: bool) -> tuple[Tensor, float]:
        y = labels[places]
        real = z[: len(y)]  # without the rows that round up
        largest, of_label = real.amax(-1, True).float(), real.gather(1, y[:, None]).float()
        torch.softmax(z, -1, out=z)
        # In one row the logits and log(p) differ by a constant, the normaliser. It is read
        # off the largest p, which is never so small that its logarithm is unsafe.
        normaliser = largest - real.amax(-1, True).float().log()
        losses = normaliser - (1 - smoothing) * of_label
        if needed:
            less = z.new_full((len(y),), smoothing - 1)
            z.flatten().index_add_(0, label_at[: len(y)] * z.size(1) + y, less)
            if kept is not None:
                real *= kept[places]
            z[len(y) :] = 0
        return (losses if kept is None else losses * kept[places]).sum(), 0.0

    return chunked_loss(
        hidden, weight, bias, logit_gradient, smoothing=smoothing, kept=kept
    )[0]  # fmt: skip


def sequence_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """`linear_cross_entropy` of hidden [B, T, D] summed where labels [B, T] are not padding."""
    hidden, labels, ignored = select_real_positions(hidden, labels)
    return linear_cross_entropy(hidden, weight, bias, labels, smoothing, ignored)


def linear_two_passes(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
    alpha: float, smoothing: float = 0.0, ignored: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sum the loss of two passes over P positions, and the divergence of their predictions.

    The divergence, (KL(p||q) + KL(q||p)) / 2, is taken in fp32: it is a small difference.

    Args:
        hidden: [2P, D], the first pass, then the second; others as in `linear_cross_entropy`.

    Returns:
        The cross-entropies of both passes plus alpha times the divergence, []; and the
        divergence alone, [], through which no gradient flows.
    """
    kept = _real(labels, ignored, hidden.dtype)

    def logit_gradient(z: Tensor, places: slice, needed: bool) -> tuple[Tensor, Tensor]:
        y = labels[places]
        wide = torch.promote_types(z.dtype, torch.float32)
        real = None if kept is None else kept[places].to(wide)
        slope, loss, differs = _two_pass_slopes(z[: 2 * len(y)].to(wide), y, smoothing, alpha, real)
        z[: 2 * len(y)] = slope
        z[2 * len(y) :] = 0
        return loss, differs

    both = None if kept is None else torch.cat((kept, kept))
    loss, divergence = chunked_loss(hidden, weight, bias, logit_gradient, 2, smoothing, both)
    return loss + alpha * divergence, divergence


def _two_pass_slopes(
    logits: Tensor, labels: Tensor, smoothing: float, alpha: float, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivative [2P, V], the cross-entropy [] and the divergence [] of two passes.

    The derivative is by the logits [2P, V]; `_uniform_part` has the rest of smoothing.
    """
    both = labels.repeat(2)[:, None]
    normaliser = logits.logsumexp(-1, True)
    losses = normaliser - (1 - smoothing) * logits.gather(1, both)
    logs = logits - normaliser
    apart = logs[: len(labels)] - logs[len(labels) :]  # log p - log q, [P, V]
    p, q = logs.exp().chunk(2)
    forth, back = (p * apart).sum(-1, True), -(q * apart).sum(-1, True)  # KL(p||q), KL(q||p)
    differs = (forth + back) / 2
    # d KL(p||q) / d logits of p is p (log p - log q - KL(p||q)); by those of q it is q - p.
    of_p = p + alpha / 2 * (p * (apart - forth) + p - q)
    of_q = q + alpha / 2 * (q * (-apart - back) + q - p)
    slope = torch.cat((of_p, of_q))
    slope.scatter_add_(1, both, torch.full_like(losses, smoothing - 1))
    if kept is not None:
        twice = torch.cat((kept, kept))
        slope, losses, differs = slope * twice, losses * twice, differs * kept
    return slope, losses.sum(), differs.sum()
