"""The losses of `mt.training` by torch's own functions over all logits."""

import torch
from torch.nn import functional as F

from mt.special_tokens import PAD


def plain_cross_entropy(hidden, weight, bias, labels, smoothing=0.0, ignored=None):
    """What `linear_cross_entropy` must equal."""
    logits = F.linear(hidden, weight, bias)
    ignored = -100 if ignored is None else ignored  # torch's own default: no label at all
    return F.cross_entropy(
        logits, labels, ignore_index=ignored, label_smoothing=smoothing, reduction="sum"
    )


def plain_two_passes(hidden, weight, bias, labels, alpha, smoothing=0.0, ignored=None):
    """What `linear_two_passes` must equal."""
    total = plain_cross_entropy(hidden, weight, bias, labels.repeat(2), smoothing, ignored)
    p, q = F.linear(hidden, weight, bias).log_softmax(-1).chunk(2)
    apart = F.kl_div(q, p, reduction="none", log_target=True)
    apart = apart + F.kl_div(p, q, reduction="none", log_target=True)
    real = torch.ones_like(labels) if ignored is None else labels != ignored
    divergence = (apart.sum(-1) * real).sum() / 2
    return total + alpha * divergence, divergence.detach()


def plain_distillation_loss(logits, theirs, labels, config):
    """What `distillation_loss` must equal."""
    smoothing, heat = config.label_smoothing, config.temperature
    cross_entropy = F.cross_entropy(
        logits, labels, ignore_index=PAD, label_smoothing=smoothing, reduction="sum"
    )
    ours, teacher = ((each / heat).log_softmax(-1) for each in (logits, theirs))
    each = F.kl_div(ours, teacher, log_target=True, reduction="none").sum(-1)
    share = config.weight
    return (1 - share) * cross_entropy + share * heat**2 * each[labels != PAD].sum()
