"""The loss of distillation is that of torch, and a teacher teaches itself nothing."""

from __future__ import annotations

import plain_losses
import pytest
import torch

from mt.config.plugins import plugin
from mt.models import transformer
from mt.training import losses, teacher
from mt.training.objectives import distillation

# ----------------------------------------------------------------------------- the loss


@pytest.fixture
def sides():
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    hidden, weight, bias = draw(40, 8), draw(90, 8), draw(90)
    theirs, projection = draw(40, 12), draw(90, 12)
    labels = torch.randint(1, 90, (40,), generator=generator)
    labels[[3, 17]] = 0
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]
    return leaves, labels, theirs, projection


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_chunked_loss_and_its_gradients_are_torchs_own(
    sides, monkeypatch, weight, temperature, smoothing
):
    monkeypatch.setattr(losses, "CHUNK", 7)
    config = distillation.Config(weight=weight, temperature=temperature, label_smoothing=smoothing)
    leaves, labels, theirs, projection = sides
    hidden, matrix, bias = leaves
    fast = distillation.distillation_loss(
        hidden, matrix, bias, labels, theirs, lambda states: states @ projection.T, config
    )
    plain = plain_losses.plain_distillation_loss(
        hidden @ matrix.T + bias, theirs @ projection.T, labels, config
    )
    torch.testing.assert_close(fast, plain)
    gradients = [torch.autograd.grad(loss, leaves) for loss in (fast, plain)]
    for ours, torchs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_it(vocabulary):
    from mt.data import collate

    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    same = teacher.ModelTeacher(transformer.build(config, vocabulary))
    same.model.load_state_dict(model.state_dict())
    batch = collate.to_batch(
        [torch.tensor([70, 71, 3]).numpy()], [torch.tensor([72, 3]).numpy()], [0]
    )
    settings = distillation.Config(weight=1.0, temperature=2.0)
    objective = plugin("objectives", "distillation").build(settings, model, vocabulary, same)
    (term,) = objective.train()(batch)
    assert term.total.item() == pytest.approx(0, abs=1e-5)
    assert len(list(objective.parameters())) == len(list(model.parameters()))
    (plain,) = objective.eval()(batch)
    assert plain.total.item() > 1  # in validation the references alone count
    assert all(not p.requires_grad for p in same.model.parameters())
