"""A teacher: a trained model, frozen, that an objective learns from.

It is no `nn.Module`, so that nothing trains, averages, shards or saves its parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.checkpoints import bundle
from mt.config.recipe import Recipe
from mt.errors import ConfigError, ModelError
from mt.interfaces import Batch, Seq2Seq
from mt.training.determinism_trace import weights_digest
from mt.vocabulary.vocabulary import Vocabulary


class ModelTeacher:
    """A frozen model behind the interface `mt.interfaces.Teacher`."""

    def __init__(self, model: nn.Module, digest: str = "") -> None:
        self.model, self.digest = model.eval().requires_grad_(False), digest

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelTeacher:
        """Return itself: the copies of an objective, such as its average, share one teacher."""
        return self

    @torch.no_grad()
    def hidden(self, batch: Batch) -> Tensor:
        """[B, T, D'] by teacher forcing."""
        model = cast(Seq2Seq, self.model)
        return model.decode(batch.inputs, model.encode(batch.source))

    @torch.no_grad()
    def project(self, hidden: Tensor) -> Tensor:
        """[..., V] logits of hidden states [..., D']."""
        return F.linear(hidden, *cast(Seq2Seq, self.model).output())


def open_teacher(
    recipe: Recipe, vocabulary: Vocabulary, device: torch.device
) -> ModelTeacher | None:
    """Open the teacher that `objective.teacher` names; None where it names none.

    Raises:
        ModelError: there is no such model, or its vocabulary is not the student's `vocabulary`.
        ConfigError: it has fewer positions than the student's pairs may have.
    """
    named = getattr(recipe.objective, "teacher", None)
    if named is None:
        return None
    path = Path(named)
    opened = bundle.open_loaded_model(path)
    check_vocabulary(path, opened.vocabulary, vocabulary)
    positions = getattr(opened.recipe.model, "max_length", None)
    if positions is not None and positions < recipe.data.max_length:
        what = f"{recipe.data.max_length}, and the teacher knows {positions} positions"
        raise ConfigError("TEACHER", "data.max_length", what, f"set data.max_length={positions}")
    model = opened.model()
    digest = weights_digest(model)
    return ModelTeacher(model.to(device), digest)


def check_vocabulary(path: Path, theirs: Vocabulary, ours: Vocabulary) -> None:
    """Raise a ModelError, with size and hash of both, when the vocabularies differ."""
    if theirs.digest == ours.digest:
        return
    both = [f"{each.size:,} pieces, {each.digest[:16]}" for each in (theirs, ours)]
    what = f"the teacher has another vocabulary ({both[0]}) than the student ({both[1]})"
    advice = "set vocabulary.path to the teacher's run, or leave it to mt distill"
    raise ModelError("VOCAB-MISMATCH", path, what, advice)
