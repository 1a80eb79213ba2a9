"""Cross-entropy: a sum over real positions."""

from __future__ import annotations

import numpy as np

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
