"""Measure how important the parts of a Transformer are, and remove heads, columns and layers.

Removed parts leave the weight matrices, so memory and work shrink too. The head width is kept.

Legend: B sentences, H heads, K head width, D model width, F feed-forward width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mt.interfaces import Batch
from mt.models.modules.layers import FeedForward, MultiHeadAttention
from mt.special_tokens import PAD
from mt.training.losses import linear_cross_entropy

Scores = dict[str, Tensor]
"""A score for each head [H] or column [F], by the name of the attention or feed-forward layer."""
KeptIndices = dict[str, Tensor]
"""The indices of the heads or columns to keep, ascending, by the same names."""


def attentions(model: nn.Module) -> dict[str, MultiHeadAttention]:
    """Every attention of a model, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, MultiHeadAttention)}


def feed_forwards(model: nn.Module) -> dict[str, FeedForward]:
    """Every feed-forward layer of a model, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, FeedForward)}


# ------------------------------------------------------------------------------ importance


def measure_importance(
    model: nn.Module, parts: Mapping[str, MultiHeadAttention | FeedForward],
    batches: Sequence[Batch],
) -> Scores:  # fmt: skip
    """The importance of heads or columns: E |dL(x)/dm| of a mask m on each, at m = 1.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 4.1, equation 2: the
    expectation is over sentence pairs x, whose loss L(x) is summed over the target. Each sentence
    has its own mask, so one backward pass serves a whole batch. As in the paper, the scores of a
    layer are divided by their l2 norm. The gradients of the model are unchanged.
    """
    totals: Scores = {}
    training = model.training
    model.eval()
    try:
        for batch in batches:
            masks = [_add_mask(part, batch) for part in parts.values()]
            with torch.enable_grad():
                gradients = torch.autograd.grad(_total_loss(model, batch), masks)
            for name, gradient in zip(parts, gradients, strict=True):
                total = gradient.abs().flatten(0, -2).sum(dim=0)  # [H] or [F]
                totals[name] = totals[name] + total if name in totals else total
    finally:
        model.train(training)
        for part in parts.values():
            part.mask = None
    return {name: total / total.norm().clamp(min=1e-30) for name, total in totals.items()}


def _add_mask(part: MultiHeadAttention | FeedForward, batch: Batch) -> Tensor:
    """Multiply a part by ones, [B, H] or [B, 1, F], which the loss is differentiated by."""
    size = (part.n_heads,) if isinstance(part, MultiHeadAttention) else (1, part.outer.in_features)
    part.mask = torch.ones((len(batch.rows), *size), device=batch.source.device, requires_grad=True)
    return part.mask


def _total_loss(model: Any, batch: Batch) -> Tensor:
    """-log p(y | x) summed over the batch."""
    hidden = model.decode(batch.inputs, model.encode(batch.source))  # [B, T, D]
    real = batch.labels != PAD  # [B, T]
    weight, bias = model.output()
    return linear_cross_entropy(hidden[real], weight, bias, batch.labels[real])


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    """The mean loss per target token."""
    model.eval()
    total = math.fsum(float(_total_loss(model, batch)) for batch in batches)
    return total / sum(int(batch.target_lengths.sum()) for batch in batches)


# ------------------------------------------------------------------------------- selection


def heads_to_keep(scores: Scores, share: float, uneven: bool) -> KeptIndices:
    """The heads that remain when a share goes; at least one per attention.

    Every attention loses the same share. With `uneven` the least important heads of all go.
    """
    if not uneven:
        return columns_to_keep(scores, share)
    best = {name: int(each.argmax()) for name, each in scores.items()}
    others = sorted(
        (float(value), name, head)
        for name, each in scores.items()
        for head, value in enumerate(each)
        if head != best[name]
    )
    num_removed = round(share * sum(map(len, scores.values())))
    removed = {(name, head) for _, name, head in others[:num_removed]}
    return {
        name: torch.tensor([head for head in range(len(each)) if (name, head) not in removed])
        for name, each in scores.items()
    }


def heads_with_open_gates(gates: Scores, uneven: bool) -> KeptIndices:
    """The heads with open gates (see `fold_gates`), at least one per attention.

    Without `uneven` every attention keeps as many heads as the one with most open gates.
    """
    counts = {name: max(1, int((each > 0).sum())) for name, each in gates.items()}
    most = max(counts.values())
    return {
        name: _highest(each, counts[name] if uneven else min(most, len(each)))
        for name, each in gates.items()
    }


def columns_to_keep(scores: Scores, share: float) -> KeptIndices:
    """The columns that remain when a share of each layer goes, at least one."""
    return {
        name: _highest(each, max(1, len(each) - round(share * len(each))))
        for name, each in scores.items()
    }


def _highest(scores: Tensor, count: int) -> Tensor:
    """The indices of the `count` largest, ascending; among equals the first."""
    return scores.cpu().argsort(descending=True, stable=True)[:count].sort().values


# --------------------------------------------------------------------------------- removal


def remove_layers(model: Any, stack: str, count: int, batches: Sequence[Batch]) -> list[int]:
    """Remove layers of `encoder` or `decoder` one by one, each time at the least loss.

    Returns the indices of the `count` layers that remain.
    """
    layers = list(getattr(model, stack))
    kept = list(range(len(layers)))

    def set_layers(numbers: list[int]) -> None:
        setattr(model, stack, nn.ModuleList([layers[i] for i in numbers]))

    def loss_without(removed: int) -> float:
        set_layers([i for i in kept if i != removed])
        return mean_loss(model, batches)

    while len(kept) > count:
        kept.remove(min(kept, key=loss_without))
    set_layers(kept)
    return kept


@torch.no_grad()
def fold_gates(model: nn.Module) -> Scores:
    """Multiply each head's output weights by its gate and drop the gates; returns them, [H]."""
    gates: Scores = {}
    for name, attention in attentions(model).items():
        if attention.gates is not None:
            gates[name] = gate = attention.gates.eval()()
            attention.output.weight.copy_(
                (attention.output.weight.unflatten(1, (len(gate), -1)) * gate[:, None]).flatten(1)
            )
            attention.gates = None
    return gates


@torch.no_grad()
def keep_heads(attention: MultiHeadAttention, heads: Tensor) -> None:
    """Remove all other heads of an attention."""
    output = attention.output
    width = output.in_features // attention.n_heads  # K
    rows = (heads[:, None] * width + torch.arange(width)).flatten().to(output.weight.device)
    _keep_outputs(attention.query, rows)  # rows: [H'*K]
    _keep_outputs(attention.key_value, torch.cat((rows, rows + output.in_features)))
    _keep_inputs(output, rows)
    attention.n_heads = len(heads)


@torch.no_grad()
def keep_columns(layer: FeedForward, columns: Tensor) -> None:
    """Remove all other columns of a feed-forward layer."""
    columns = columns.to(layer.outer.weight.device)
    for part in (layer.inner, layer.gate):
        if part is not None:
            _keep_outputs(part, columns)
    _keep_inputs(layer.outer, columns)


def _keep_outputs(part: nn.Linear, rows: Tensor) -> None:
    part.weight = nn.Parameter(part.weight[rows])
    part.bias = nn.Parameter(part.bias[rows])
    part.out_features = len(rows)


def _keep_inputs(part: nn.Linear, columns: Tensor) -> None:
    part.weight = nn.Parameter(part.weight[:, columns])
    part.in_features = len(columns)


def layer_sizes(model: Any) -> dict[str, Any]:
    """The sizes of a pruned model, as keys of the transformer's config."""
    parts = {
        "encoder": [n.self_attention.n_heads for n in model.encoder],
        "decoder": [n.self_attention.n_heads for n in model.decoder],
        "cross": [n.cross_attention.n_heads for n in model.decoder],
    }
    first = next(iter(attentions(model).values()))
    width, most = first.output.in_features // first.n_heads, max(map(max, parts.values()))
    even = {count for counts in parts.values() for count in counts} == {most}
    return {
        "n_heads": most,
        "d_head": None if even and most * width == first.output.out_features else width,
        "layer_heads": None if even else parts,
        "head_gates": None,
        "d_ff": next(iter(feed_forwards(model).values())).outer.in_features,
        "encoder_layers": len(model.encoder),
        "decoder_layers": len(model.decoder),
    }
