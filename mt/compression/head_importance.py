"""What a trained model can do without, and taking it out: heads, feed-forward columns, layers.

What is taken out is gone: the matrices of what is left are smaller, and so is the work. How wide
a head is does not change.

Legend: B sentences, H heads, K head width, D model width, F feed-forward width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mt.interfaces import Batch
from mt.models.modules.layers import FeedForward, MultiHeadAttention
from mt.special_tokens import PAD
from mt.training.losses import linear_cross_entropy

Scores = dict[str, Tensor]
"""By the name of an attention or of a feed-forward layer, a figure for each head or column."""
KeptIndices = dict[str, Tensor]
"""By the same names the numbers of what stays, ascending."""


@dataclass(frozen=True)
class Importance:
    """How much the loss would feel the want of each part; see `measure_importance`."""

    heads: Scores
    columns: Scores


def attentions(model: nn.Module) -> dict[str, MultiHeadAttention]:
    """Every attention of a model, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, MultiHeadAttention)}


def feed_forwards(model: nn.Module) -> dict[str, FeedForward]:
    """Every feed-forward layer of a model, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, FeedForward)}


# ------------------------------------------------------------------------------ importance


def measure_importance(model: nn.Module, batches: Sequence[Batch]) -> Importance:
    """The importance of heads and columns: E |dL(x)/dm| of a mask m on each, at m = 1.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 4.1, equation 2: the
    expectation is over sentence pairs x, whose loss L(x) is summed over the target. A mask of its
    own for every sentence makes one backward pass tell all of a batch. As there, the figures of a
    layer are divided by their l2 norm.

    Args:
        model: a Transformer; its gradients are left alone.
        batches: sentence pairs, on the model's device.
    """
    parts: dict[str, MultiHeadAttention | FeedForward] = {
        **attentions(model), **feed_forwards(model),
    }  # fmt: skip
    totals: Scores = {}
    with _frozen_weights(model):
        for batch in batches:
            masks = {name: _mask(part, len(batch.rows), batch.source) for name, part in
                     parts.items()}  # fmt: skip
            try:
                _sum_gradients(model, batch).backward()
            finally:
                for part in parts.values():
                    part.mask = None
            for name, mask in masks.items():
                assert mask.grad is not None, "every mask is on the way to the loss"
                felt = mask.grad.abs().flatten(0, -2).sum(dim=0)  # [H] or [F]
                totals[name] = totals[name] + felt if name in totals else felt
    told = {name: total / total.norm().clamp(min=1e-30) for name, total in totals.items()}
    heads = attentions(model).keys()
    return Importance(
        {name: value for name, value in told.items() if name in heads},
        {name: value for name, value in told.items() if name not in heads},
    )


@contextmanager
def _frozen_weights(model: nn.Module) -> Iterator[None]:
    """Inference with gradients, but none of the weights."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    training = model.training
    model.eval().requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


def _mask(part: MultiHeadAttention | FeedForward, sentences: int, like: Tensor) -> Tensor:
    """Ones, [B, H] or [B, 1, F], that the part multiplies by and the loss is derived by."""
    if isinstance(part, MultiHeadAttention):
        shape: tuple[int, ...] = (sentences, part.n_heads)
    else:
        shape = (sentences, 1, part.outer.in_features)
    part.mask = torch.ones(shape, device=like.device, requires_grad=True)
    return part.mask


def _sum_gradients(model: Any, batch: Batch) -> Tensor:
    """-log p(y | x) summed over the batch."""
    hidden = model.decode(batch.inputs, model.encode(batch.source))  # [B, T, D]
    real = batch.labels != PAD  # [B, T]
    weight, bias = model.output()
    return linear_cross_entropy(hidden[real], weight, bias, batch.labels[real])


@torch.no_grad()
def weighted_loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    """The mean loss of a token."""
    model.eval()
    total = math.fsum(float(_sum_gradients(model, batch)) for batch in batches)
    return total / sum(int(batch.target_lengths.sum()) for batch in batches)


# -------------------------------------------------------------------------------- choosing


def heads_to_keep(scores: Scores, share: float, uneven: bool) -> KeptIndices:
    """Which heads stay when a share of them goes; one of each attention at least.

    Args:
        scores: the importance of each.
        share: how many go.
        uneven: those least important of all, rather than as many of each attention.
    """
    if not uneven:
        return {
            name: _highest(each, _at_least_one(len(each), share)) for name, each in scores.items()
        }
    best = {name: int(each.argmax()) for name, each in scores.items()}
    others = sorted(
        (float(value), name, head)
        for name, each in scores.items()
        for head, value in enumerate(each)
        if head != best[name]
    )
    going = round(share * sum(map(len, scores.values())))
    gone = {(name, head) for _, name, head in others[:going]}
    return {
        name: torch.tensor([head for head in range(len(each)) if (name, head) not in gone])
        for name, each in scores.items()
    }


def heads_with_open_gates(gates: Scores, uneven: bool) -> KeptIndices:
    """The heads whose gates are not closed, and of each attention one at least.

    Args:
        gates: from `fold_gates`.
        uneven: no others; else as many of each attention as the one with most has.
    """
    counts = {name: max(1, int((each > 0).sum())) for name, each in gates.items()}
    most = max(counts.values())
    return {
        name: _highest(each, counts[name] if uneven else min(most, len(each)))
        for name, each in gates.items()
    }


def columns_to_keep(scores: Scores, share: float) -> KeptIndices:
    """Which feed-forward columns stay when a share of them goes, the same number in each layer."""
    return {name: _highest(each, _at_least_one(len(each), share)) for name, each in scores.items()}


def _at_least_one(count: int, share: float) -> int:
    return max(1, count - round(share * count))


def _highest(scores: Tensor, count: int) -> Tensor:
    """The numbers of the `count` largest, ascending; of equals the first."""
    return scores.cpu().argsort(descending=True, stable=True)[:count].sort().values


# ------------------------------------------------------------------------------ taking out


def remove_layers(model: Any, stack: str, count: int, batches: Sequence[Batch]) -> list[int]:
    """Take layers out of `encoder` or `decoder`, each time the one whose want costs least loss.

    Returns:
        The numbers of those that stay.
    """
    layers, kept = list(getattr(model, stack)), list(range(len(getattr(model, stack))))

    def without(gone: int) -> float:
        setattr(model, stack, nn.ModuleList([layers[i] for i in kept if i != gone]))
        return weighted_loss(model, batches)

    while len(kept) > count:
        kept.remove(min(kept, key=without))
    setattr(model, stack, nn.ModuleList([layers[i] for i in kept]))
    return kept


@torch.no_grad()
def fold_gates(model: nn.Module) -> Scores:
    """Multiply what follows each head by its gate, which is then no more; the gates, [H] each."""
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
    """Take all other heads out of an attention."""
    device = attention.output.weight.device
    width = attention.output.in_features // attention.n_heads  # K
    rows = (heads[:, None] * width + torch.arange(width)).flatten().to(device)  # [H'*K]
    both = torch.cat((rows, rows + attention.output.in_features))  # of keys, then of values
    _keep(attention.query, rows)
    _keep(attention.key_value, both)
    _keep_inputs(attention.output, rows)
    attention.n_heads = len(heads)


@torch.no_grad()
def keep_columns(layer: FeedForward, columns: Tensor) -> None:
    """Take all other columns out of a feed-forward layer."""
    columns = columns.to(layer.outer.weight.device)
    for part in (layer.inner, layer.gate):
        if part is not None:
            _keep(part, columns)
    _keep_inputs(layer.outer, columns)


def _keep(part: nn.Linear, rows: Tensor) -> None:
    part.weight = nn.Parameter(part.weight[rows])
    part.bias = nn.Parameter(part.bias[rows])
    part.out_features = len(rows)


def _keep_inputs(part: nn.Linear, columns: Tensor) -> None:
    part.weight = nn.Parameter(part.weight[:, columns])
    part.in_features = len(columns)


def layer_sizes(model: Any) -> dict[str, Any]:
    """The keys of the transformer's config that tell how large a pruned model is."""
    every = attentions(model)
    parts = {
        "encoder": [n.self_attention.n_heads for n in model.encoder],
        "decoder": [n.self_attention.n_heads for n in model.decoder],
        "cross": [n.cross_attention.n_heads for n in model.decoder],
    }
    first = next(iter(every.values()))
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
