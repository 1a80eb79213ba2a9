"""Small models with a loss, and batches for them."""

from __future__ import annotations

import torch

from mt.models import transformer
from mt.training.objectives import cross_entropy
from mt.training.step import (
    ModelWithLoss,
)


def made(vocabulary, seed=1):
    torch.manual_seed(seed)
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    return ModelWithLoss(model, cross_entropy.CrossEntropy(model, 0.1), "fp32")
