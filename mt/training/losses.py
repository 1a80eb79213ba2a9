"""Projection to the vocabulary and label-smoothed cross-entropy, never all logits at once.

Legend: P real positions, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mt.models.modules.linear import pad_rows
from mt.special_tokens import PAD

CHUNK = 512
"""Rows whose logits a CPU holds at one time: twice 512 x 32,000 in bf16 are 64 MB."""
DEVICE_CHUNKS = 8
"""A GPU takes so many times as many rows at once: small products leave it idle."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Forms the gradients while a chunk's probabilities are at hand, so they are computed once.

    A chunk's logits and probabilities stay in the type of the products and in the same two
    buffers; one fused softmax reads and writes each row while it is in cache. That smoothed
    labels have a uniform part is left to `_spread_evenly`.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
        smoothing: float, kept: Tensor | None, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        wanted = any(ctx.needs_input_grad[:3])
        gradients = zero_gradients(hidden, weight, bias, wanted)
        h, w, b = (
            pad_rows(hidden, dtype),
            weight.to(dtype),
            None if bias is None else bias.to(dtype),
        )
        chunk = CHUNK if h.device.type == "cpu" else DEVICE_CHUNKS * CHUNK
        logits, slopes = (h.new_empty(min(chunk, len(h)), len(w)) for _ in range(2))
        # Where each row's label lies in the flat buffer: scatter_add_ is slow in bf16 on a CPU.
        label_at = torch.arange(len(slopes), device=h.device) * len(w)
        less = h.new_full((len(slopes),), smoothing - 1)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            x, y = h[rows], labels[rows]
            z, p = logits[: len(x)], slopes[: len(x)]
            torch.mm(x, w.t(), out=z) if b is None else torch.addmm(b, x, w.t(), out=z)
            torch.softmax(z, -1, out=p)
            real_z, real_p = z[: len(y)], p[: len(y)]  # without the rows that round up
            # In one row the logits and log(p) differ by a constant, the normaliser. It is read
            # off the largest p, which is never so small that its logarithm is unsafe.
            normaliser = real_z.amax(-1, True).float() - real_p.amax(-1, True).float().log()
            losses = normaliser - (1 - smoothing) * real_z.gather(1, y[:, None]).float()
            total += (losses if kept is None else losses * kept[rows]).sum()
            if wanted:
                p.flatten().index_add_(0, label_at[: len(y)] + y, less[: len(y)])
                if kept is not None:
                    real_p *= kept[rows]
                p[len(y) :] = 0
                add_gradients(gradients, rows, p, x, w)
        if smoothing:
            total -= _spread_evenly(gradients, hidden, weight, bias, kept, smoothing)
        ctx.gradients = gradients
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        return *to_parameter_dtype(ctx, gradient), None, None, None, None


Gradients = list[Tensor | None]
"""Of hidden states [P, D], weight [V, D] and bias [V], which a fused loss forms in its forward."""


def zero_gradients(hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: bool) -> Gradients:
    """Where to add them, if they are wanted."""
    every = hidden, weight, bias
    return [torch.zeros_like(t) if wanted and t is not None else None for t in every]


def to_parameter_dtype(ctx: Any, gradient: Tensor) -> Gradients:
    """What the forward left in `ctx.gradients`, times the gradient [] of the loss; only once."""
    parts = [None if g is None else g.mul_(gradient.to(g.dtype)) for g in ctx.gradients]
    ctx.gradients = ()
    return parts


def add_gradients(gradients: Gradients, rows: slice, slope: Tensor, x: Tensor, w: Tensor) -> None:
    """Add what the slope [CHUNK, V] of the loss by the logits says of hidden, weight and bias."""
    hidden, weight, bias = gradients
    assert hidden is not None
    assert weight is not None
    part = hidden[rows]
    part[:] = (slope @ w)[: len(part)]
    weight += slope.t() @ x
    if bias is not None:
        bias += slope.sum(0, dtype=bias.dtype)


def _spread_evenly(
    gradients: Gradients, hidden: Tensor, weight: Tensor, bias: Tensor | None,
    kept: Tensor | None, smoothing: float,
) -> Tensor:  # fmt: skip
    """What smoothing / V on every label takes off the loss, []; the gradients get theirs.

    It is the same for every logit, so sums of rows suffice, in fp32, not a pass over P x V.
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


def _product_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """In which type hidden states are multiplied by the projection: the autocast's, if it is on."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if dtype not in (torch.bfloat16, torch.float16):
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
    return dtype


def select_real_positions(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int | None]:
    """What a loss is taken of: hidden states [P, D] and labels [P] of a batch's positions.

    Args:
        hidden: [B, T, D], or of several passes over the batch, one after the other, [n*B, T, D].
        labels: [B, T].

    Returns:
        Hidden states [n*P, D], labels [P], and the label that counts nothing, if there is one.
    """
    passes = len(hidden) // len(labels)
    if hidden.device.type != "cpu":
        # A gather would have to wait for its size: padding goes along and counts nothing.
        return hidden.flatten(0, 1), labels.flatten(), PAD
    at = (labels != PAD).flatten().nonzero()[:, 0]  # whose gradient is cheaper than a mask's
    every = torch.cat([at + i * labels.numel() for i in range(passes)]) if passes > 1 else at
    return hidden.flatten(0, 1).index_select(0, every), labels.flatten().index_select(0, at), None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
    smoothing: float = 0.0, ignored: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum over P positions of the cross-entropy with smoothed labels (section 5.4).

    A label y stands for the distribution (1 - smoothing) onehot(y) + smoothing / V
    (Szegedy et al. 2015). Products are taken in the autocast type, sums in fp32.

    Args:
        hidden: [P, D]; best of real positions only, where finding them costs nothing.
        weight: [V, D]. bias: [V] or None.
        labels: [P] ids.
        smoothing: share of the probability spread over the vocabulary.
        ignored: positions with this label count nothing.
    """
    dtype = _product_type(hidden, weight)
    kept = None if ignored is None else (labels != ignored)[:, None].to(hidden.dtype)  # [P, 1]
    with torch.autocast(hidden.device.type, enabled=False):
        total: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, smoothing, kept, dtype
        )
    return total


def sequence_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """`linear_cross_entropy` of hidden [B, T, D] summed where labels [B, T] are not padding."""
    hidden, labels, ignored = select_real_positions(hidden, labels)
    return linear_cross_entropy(hidden, weight, bias, labels, smoothing, ignored)


def plain_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
    smoothing: float = 0.0, ignored: int | None = None,
) -> Tensor:  # fmt: skip
    """What `linear_cross_entropy` must equal, written as torch's own loss over all logits."""
    logits = F.linear(hidden, weight, bias)
    ignored = -100 if ignored is None else ignored  # torch's own default: no label at all
    return F.cross_entropy(
        logits, labels, ignore_index=ignored, label_smoothing=smoothing, reduction="sum"
    )


# --------------------------------------------------------------------- of two passes at once


class _LinearTwoPasses(torch.autograd.Function):
    """As `_LinearCrossEntropy`, of two passes over the same labels and how far they differ.

    The rows of both passes go through the projection together, a chunk of each at a time, so that
    the divergence costs no product more. It is taken in fp32: it is a small difference.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
        smoothing: float, alpha: float, kept: Tensor | None, dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        count = len(labels)
        wanted = any(ctx.needs_input_grad[:3])
        gradients = zero_gradients(hidden, weight, bias, wanted)
        w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
        chunk = (CHUNK if hidden.device.type == "cpu" else DEVICE_CHUNKS * CHUNK) // 2
        wide = torch.promote_types(dtype, torch.float32)
        loss, divergence = torch.zeros(2, dtype=torch.float32, device=hidden.device)
        for start in range(0, count, chunk):
            y = labels[start : start + chunk]
            rows = 2 * len(y)
            x = pad_rows(torch.cat([h[start : start + chunk] for h in hidden.chunk(2)]), dtype)
            z = torch.mm(x, w.t()) if b is None else torch.addmm(b, x, w.t())
            real = None if kept is None else kept[start : start + chunk].to(wide)
            slope, losses, differs = _two_slopes(z[:rows].to(wide), y, smoothing, alpha, real)
            loss += losses
            divergence += differs
            if wanted:
                p = z.zero_()
                p[:rows] = slope
                places = slice(start, start + chunk)
                _add_two_gradients(gradients, places, p, x, w)
        if smoothing:
            both = None if kept is None else torch.cat((kept, kept))
            loss -= _spread_evenly(gradients, hidden, weight, bias, both, smoothing)
        ctx.gradients = gradients
        ctx.mark_non_differentiable(divergence)
        return loss + alpha * divergence, divergence

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor):  # type: ignore[no-untyped-def]
        return *to_parameter_dtype(ctx, gradient), None, None, None, None, None


def _add_two_gradients(
    gradients: Gradients, places: slice, slope: Tensor, x: Tensor, w: Tensor
) -> None:
    """As `add_gradients`, for the same places of both passes: x [2P, D], slope [2P, V]."""
    hidden, *others = gradients
    assert hidden is not None
    first, other = hidden.chunk(2)
    count = len(first[places])
    part = torch.empty_like(x)
    add_gradients([part, *others], slice(None), slope, x, w)
    first[places], other[places] = part[:count], part[count : 2 * count]


def _two_slopes(
    logits: Tensor, labels: Tensor, smoothing: float, alpha: float, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the logits [2P, V] of two passes say of labels [P], where `kept` [P, 1] is 1.

    Returns:
        The slope [2P, V] of loss plus alpha times divergence by the logits, and these two, [].
        That smoothed labels have a uniform part is left to `_spread_evenly`.
    """
    both = labels.repeat(2)[:, None]
    normaliser = logits.logsumexp(-1, True)
    losses = normaliser - (1 - smoothing) * logits.gather(1, both)
    logs = logits - normaliser
    apart = logs[: len(labels)] - logs[len(labels) :]  # log p - log q, [P, V]
    p, q = logs.exp().chunk(2)
    forth, back = (p * apart).sum(-1, True), -(q * apart).sum(-1, True)  # KL(p||q), KL(q||p)
    differs = (forth + back) / 2
    # Of KL(p||q) by the logits of p it is p (log p - log q - KL(p||q)), by those of q it is q - p.
    of_p = p + alpha / 2 * (p * (apart - forth) + p - q)
    of_q = q + alpha / 2 * (q * (-apart - back) + q - p)
    slope = torch.cat((of_p, of_q))
    slope.scatter_add_(1, both, torch.full_like(losses, smoothing - 1))
    if kept is not None:
        twice = torch.cat((kept, kept))
        slope, losses, differs = slope * twice, losses * twice, differs * kept
    return slope, losses.sum(), differs.sum()


def linear_two_passes(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
    alpha: float, smoothing: float = 0.0, ignored: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss of two passes over P positions, and how far their predictions lie apart.

    Args:
        hidden: [2P, D], the first pass, then the second.
        weight, bias, smoothing, ignored: see `linear_cross_entropy`.
        labels: [P] ids, the same for both.
        alpha: weight of the divergence.

    Returns:
        The cross-entropies of both passes plus alpha times the divergence; and the divergence
        alone, (KL(p||q) + KL(q||p)) / 2, through which no gradient flows. Both are sums, [].
    """
    dtype = _product_type(hidden, weight)
    kept = None if ignored is None else (labels != ignored)[:, None].to(hidden.dtype)  # [P, 1]
    with torch.autocast(hidden.device.type, enabled=False):
        total, divergence = _LinearTwoPasses.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, smoothing, alpha, kept, dtype
        )
    return total, divergence


def plain_two_passes(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
    alpha: float, smoothing: float = 0.0, ignored: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What `linear_two_passes` must equal, by torch's own functions over all logits."""
    total = plain_cross_entropy(hidden, weight, bias, labels.repeat(2), smoothing, ignored)
    p, q = F.linear(hidden, weight, bias).log_softmax(-1).chunk(2)
    apart = F.kl_div(q, p, reduction="none", log_target=True)
    apart = apart + F.kl_div(p, q, reduction="none", log_target=True)
    real = torch.ones_like(labels) if ignored is None else labels != ignored
    divergence = (apart.sum(-1) * real).sum() / 2
    return total + alpha * divergence, divergence.detach()
