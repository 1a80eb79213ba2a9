"""What runs on a device as a whole: blocks compile without a break, once for all shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.data import collate
from mt.models import transformer
from mt.runtime.torch_private import num_compilations
from mt.training.objectives import cross_entropy
from mt.training.step import ModelWithLoss, accumulate_gradients


def batch_of(rows, source, target):
    sides = [[np.full(width, 70)] * rows for width in (source, target)]
    return collate.to_batch(*sides, np.arange(rows))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, of its own
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_blocks_compile_whole_and_once_for_all_shapes(vocabulary, norm):
    """One compilation for the encoder's layers and one for the decoder's; no break in either."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=2, decoder_layers=2, dropout=0, norm=norm
    )
    model = transformer.build(config, vocabulary)
    step = ModelWithLoss(model, cross_entropy.CrossEntropy(model, 0.1), "bf16")
    for block in model.blocks():
        block.compile(dynamic=True, backend="eager", fullgraph=True)
    no_scaler = torch.amp.GradScaler("cpu", enabled=False)
    for shape in [(4, 7, 9), (8, 9, 9), (3, 12, 10), (5, 6, 8)]:
        accumulate_gradients(step, step.objective, [batch_of(*shape)], no_scaler)
    assert num_compilations() == 2
    assert not counters["graph_break"]
