"""Guided alignment: cross-attention learns to look where IBM Model 1 links a target piece.

A model of few pairs spends most of its training on finding out which source word a target word
comes from; counting words that occur together finds that in seconds. So an attention is trained
towards the links of IBM Model 1, beside the translation loss (Chen et al. 2016, section 3; one
layer of a Transformer: Garg et al. 2019, section 4). Links follow from the ids of a batch and a
lexicon of pieces: they stay right when each epoch segments words in another way.

Legend: B sentences, n passes of an objective over them, H heads, T target and S source positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from mt.config.recipe import Recipe
from mt.data.cache import PreparedData
from mt.data.ibm_model1 import EMPTY, Lexicon
from mt.data.training_lexicon import learn_training_lexicon
from mt.errors import ConfigError
from mt.interfaces import Batch, Loss, Objective, Term
from mt.special_tokens import END, PAD

TENSION, FROM_NOTHING = 4.0, 0.08
"""How strongly links keep to the diagonal, and the share of target pieces that come from no source
piece, before any is seen: where fast_align begins (Dyer et al. 2013, section 2)."""
LEAST = 1e-4
"""Entries of the lexicon below this are left out; they are most of it."""
LEAST_WEIGHT = 1e-6
"""Attention weights below this have no gradient: their logarithm would be unsafe."""


class Aligner:
    """Finds the links of a batch; not a module, so that copies of an objective share it."""

    def __init__(self, lexicon: Lexicon, target_size: int, device: torch.device) -> None:
        likely = lexicon.probability >= LEAST
        keys = lexicon.source[likely] * target_size + lexicon.target[likely]
        # The last key is above that of any pair of pieces: every place found is within the array.
        end = torch.tensor([torch.iinfo(torch.int64).max])
        self.keys = torch.cat((torch.from_numpy(keys), end)).to(device)
        probability = torch.from_numpy(lexicon.probability[likely])
        self.probability = torch.cat((probability, torch.zeros(1))).to(device)
        self.target_size = target_size

    def __deepcopy__(self, memo: dict[int, Any]) -> Aligner:
        return self

    @torch.no_grad()
    def links(self, batch: Batch) -> Tensor:
        """The probability [B, T, S] that a target piece comes from a source piece.

        That of its coming from none is what a row lacks to 1; `</s>` comes from `</s>`.
        """
        source, labels = batch.source, batch.labels
        is_text = (source != PAD) & (source != END)  # [B, S]
        joint = self._translation(source, labels) * self._prior(is_text, labels != PAD)
        nothing = FROM_NOTHING * self._translation(torch.full_like(source[:, :1], EMPTY), labels)
        total = joint.sum(-1, keepdim=True) + nothing  # [B, T, 1]
        links = joint / total.clamp(min=torch.finfo(total.dtype).tiny)
        of_end = (labels == END)[:, :, None]
        return torch.where(of_end, ((source == END)[:, None, :] & of_end).to(links.dtype), links)

    def _translation(self, source: Tensor, labels: Tensor) -> Tensor:
        """t(target | source) [B, T, S] of the lexicon, 0 where it has no entry."""
        keys = source[:, None, :] * self.target_size + labels[:, :, None]
        places = torch.searchsorted(self.keys, keys)
        return torch.where(self.keys[places] == keys, self.probability[places], 0)

    def _prior(self, is_text: Tensor, is_label: Tensor) -> Tensor:
        """The probability [B, T, S] of a link by its distance from the diagonal alone."""
        source, target = _places(is_text), _places(is_label)
        distance = (source[:, None, :] - target[:, :, None]).abs()
        near = (-TENSION * distance).exp() * is_text[:, None, :]
        return (1 - FROM_NOTHING) * near / near.sum(-1, keepdim=True).clamp(min=1e-9)


def _places(real: Tensor) -> Tensor:
    """Positions [B, S] from 0 to 1 within the real ones [B, S] of each row."""
    count = real.sum(1, keepdim=True).clamp(min=1)
    return torch.arange(real.size(1), device=real.device) / count


class GuidedAlignment(nn.Module):
    """An objective and, in training, the cross-entropy of an attention against the links."""

    def __init__(
        self, objective: nn.Module, model: nn.Module, aligner: Aligner, weight: float
    ) -> None:
        super().__init__()
        self.objective, self.model = objective, model
        self.aligner, self.weight = aligner, weight

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Count the positions of each term."""
        counts = cast(Objective, self.objective).counts(batch)
        return {**counts, "alignment": batch.target_lengths.sum()} if self.training else counts

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of one micro-batch."""
        if not self.training:
            terms: Loss = self.objective(batch)
            return terms
        with cast(Any, self.model).record_alignment() as recorded:
            terms = self.objective(batch)
        total = alignment_loss(recorded[0], self.aligner.links(batch))
        return (*terms, Term("alignment", total, batch.target_lengths.sum(), self.weight))


def alignment_loss(attention: Tensor, links: Tensor) -> Tensor:
    """Sum -p(link) log(attention) over the links; the mean over passes.

    Args:
        attention: [n*B, H, T, S]; the mean over its heads is trained.
        links: [B, T, S], see `Aligner.links`; padding has none.
    """
    logs = attention.mean(dim=1).clamp(min=LEAST_WEIGHT).log()  # [n*B, T, S]
    passes = logs.unflatten(0, (-1, len(links))) if len(links) else logs[None]
    return -(links * passes).sum() / len(passes)


def add_guided_alignment(
    objective: nn.Module, model: nn.Module, recipe: Recipe, prepared: PreparedData,
    device: torch.device, log: Callable[[str], None],
) -> nn.Module:  # fmt: skip
    """Add guided alignment if the recipe has `objective.alignment_weight`; learn its lexicon.

    Raises:
        ConfigError: the model has no attention that can be guided.
    """
    weight = getattr(recipe.objective, "alignment_weight", 0.0)
    if not weight:
        return objective
    if not hasattr(model, "record_alignment"):
        what = f"a model of kind {recipe.model.kind} has no record_alignment() to guide"
        advice = "set objective.alignment_weight=0, or model.kind=transformer"
        raise ConfigError("CONFIG", "objective.alignment_weight", what, advice)
    cast(Any, model).record_alignment()
    lexicon = learn_training_lexicon(recipe, prepared)
    aligner = Aligner(lexicon, prepared.vocabulary.target_size, device)
    log(f"{len(aligner.keys) - 1:,} pairs of pieces guide attention (objective.alignment_weight)")
    return GuidedAlignment(objective, model, aligner, weight)
