"""Small models with head gates, and their batches."""

from __future__ import annotations

import numpy as np
import torch

from mt.config.plugins import plugin
from mt.data import collate
from mt.training.head_gate_loss import add_head_gate_loss
from mt.training.step import ModelWithLoss, accumulate_gradients

transformer, mixture = plugin("models", "transformer"), plugin("models", "mixture_of_heads")

cross_entropy = plugin("objectives", "cross_entropy")

SMALL = {"d_model": 16, "n_heads": 4, "d_ff": 12, "encoder_layers": 2, "decoder_layers": 2}

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def batches(count, size, seed=1):
    """`count` pairs, of which the target repeats the source."""
    generator = np.random.default_rng(seed)
    texts = [np.append(generator.integers(68, 76, n), 3) for n in generator.integers(2, 8, count)]
    return [
        collate.to_batch(
            texts[i : i + size], texts[i : i + size], np.arange(len(texts))[i : i + size]
        )
        for i in range(0, count, size)
    ]


def built(vocabulary, module=transformer, **config):
    return module.build(module.Config(**{**SMALL, "dropout": 0.0, **config}), vocabulary)


def step_of(model, vocabulary, config, module=transformer):
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    return ModelWithLoss(
        model, add_head_gate_loss(objective, model, module.Config(**SMALL, **config)), "fp32"
    )


def assert_any_cut_is_the_same(step):
    """Loss and gradients of 16 pairs in one micro-batch are those in four."""
    found = []
    for size in (16, 4):
        step.zero_grad()
        loss = accumulate_gradients(step, step.objective, batches(16, size), NO_SCALER)
        found.append((loss, {n: p.grad.clone() for n, p in step.named_parameters()}))
    (one, whole), (two, parts) = found
    torch.testing.assert_close(one, two)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-6)
