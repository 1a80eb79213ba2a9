"""Overfitting warning: reported once, with advice.

Both losses are without dropout and label smoothing, and of the weights that translate. A model
overfits while the loss of training pairs falls and that of validation pairs rises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mt.config.recipe import Recipe

MARGIN = 0.01
"""Share by which a loss must be above the lowest one to count as risen."""
MIN_RISES = 3
"""Validations in a row with a risen loss before the warning."""


@dataclass(frozen=True)
class OverfittingState:
    """Where the validation loss was lowest, and what has happened since."""

    valid: float
    """The lowest validation loss, nats a token."""
    train: float
    """The loss of training pairs at that step."""
    step: int
    """The update after which it was."""
    risen: int = 0
    """Validations in a row since, in which it was higher and that of training pairs lower."""
    told: bool = False
    """Whether the warning has been printed."""


def observe(
    gap: OverfittingState | None, step: int, valid: float, train: float
) -> OverfittingState | None:
    """Return the state after one more validation with these losses."""
    if not (math.isfinite(valid) and math.isfinite(train)):
        return gap
    if gap is None or valid < gap.valid:
        return OverfittingState(valid, train, step, told=gap is not None and gap.told)
    apart = valid > gap.valid * (1 + MARGIN) and train < min(gap.train, valid)
    return replace(gap, risen=gap.risen + 1 if apart else 0)


def warning(gap: OverfittingState, valid: float, train: float, recipe: Recipe) -> str:
    """Return the line to print, or an empty string."""
    if gap.told or gap.risen < MIN_RISES:
        return ""
    return (
        f"mt: warning[OVERFITTING] the validation loss, {valid:.3f}, has been above its lowest "
        f"({gap.valid:.3f} at step {gap.step:,}) for {gap.risen} validations, while that of "
        f"training pairs fell from {gap.train:.3f} to {train:.3f}; "
        f"{', '.join(advice(recipe))} (docs/low_resource.md)"
    )


def advice(recipe: Recipe) -> list[str]:
    """List the keys that help against overfitting and are not in use."""
    model, keys = recipe.model, []
    dropout = getattr(model, "dropout", None)
    if dropout is not None and dropout < 0.5:
        keys.append(f"raise model.dropout from {dropout}")
    words = getattr(model, "word_dropout", None)
    if words is not None and not (words.source or words.target):
        keys.append("set model.word_dropout")
    if recipe.vocabulary.kind == "sentencepiece" and not recipe.vocabulary.sampling.kinds:
        keys.append("set vocabulary.sampling")
    if getattr(recipe.objective, "alignment_weight", None) == 0 and hasattr(model, "n_heads"):
        keys.append("set objective.alignment_weight")
    if recipe.objective.kind == "cross_entropy":
        keys.append("set objective.kind=r_drop")
    if recipe.training.patience is None:
        keys.append("set training.patience to end in time")
    return [*keys, "train on more text, or a smaller model"]
