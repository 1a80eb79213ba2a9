"""Cross-entropy: a sum over real positions."""

from __future__ import annotations

import numpy as np
import torch

from mt.data import collate
from mt.models import transformer
from mt.training.objectives import cross_entropy


def test_a_batch_without_rows_adds_nothing(vocabulary):
    config = transformer.Config(d_model=8, n_heads=2, d_ff=8, encoder_layers=1, decoder_layers=1)
    model = transformer.build(config, vocabulary)
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    batch = collate.collate_pairs(None, np.array([], dtype=np.int64))
    assert {name: int(count) for name, count in objective.counts(batch).items()} == {"loss": 0}
    (term,) = objective(batch)
    assert (float(term.total.detach()), int(term.count)) == (0.0, 0)
    term.total.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_the_loss_is_that_of_torch_and_is_smoothed_in_training_only(vocabulary):
    config = transformer.Config(
        d_model=8, n_heads=2, d_ff=8, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    settings = cross_entropy.Config(label_smoothing=0.2)
    objective = cross_entropy.build(settings, model, vocabulary, None)
    source, target = [np.array([70, 3]), np.array([71, 72, 3])], [np.array([80, 3]), np.array([3])]
    batch = collate.to_batch(source, target, np.arange(2))
    logits = model(batch.source, batch.inputs).flatten(0, 1)
    for mode, smoothing in ((True, 0.2), (False, 0.0)):
        (term,) = objective.train(mode)(batch)
        plain = torch.nn.functional.cross_entropy(
            logits, batch.labels.flatten(), ignore_index=0, reduction="sum",
            label_smoothing=smoothing,
        )  # fmt: skip
        torch.testing.assert_close(term.total, plain, rtol=1e-4, atol=1e-5)
        assert int(term.count) == 3
