"""Tiny models and runs with checkpoints of them."""

from __future__ import annotations

import torch

from mt.checkpoints import checkpoint
from mt.checkpoints.train_state import TrainState
from mt.models import transformer
from mt.training.objectives import cross_entropy
from mt.training.step import ModelWithLoss

SMALL = {"d_model": 8, "n_heads": 2, "d_ff": 8, "encoder_layers": 1, "decoder_layers": 1}


def made(vocabulary, seed=1):
    torch.manual_seed(seed)
    model = transformer.build(transformer.Config(**SMALL), vocabulary)
    step = ModelWithLoss(
        model, cross_entropy.build(cross_entropy.Config(), model, vocabulary, None), "fp32"
    )
    optimizer = torch.optim.AdamW(step.parameters(), fused=True)
    for parameter in step.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return step, optimizer


def saved(run, vocabulary, number=1, seed=1):
    step, optimizer = made(vocabulary, seed)
    tensors = checkpoint.training_tensors(step, None, optimizer)
    state = TrainState(step=number, best=1.5)
    return checkpoint.save_checkpoint(
        run, checkpoint.checkpoint_name(number), step.model, state, {}, tensors
    )
