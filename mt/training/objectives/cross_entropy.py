"""Teacher-forced cross-entropy with label smoothing (sections 3.1 and 5.4)."""

from __future__ import annotations

from torch import nn

from mt.interfaces import Teacher
from mt.training.cross_entropy import CrossEntropy, CrossEntropyConfig
from mt.vocabulary.vocabulary import Vocabulary


class Config(CrossEntropyConfig):
    """The translation loss."""

    kind: str = "cross_entropy"


def build(
    config: Config, model: nn.Module, vocabulary: Vocabulary, teacher: Teacher | None
) -> CrossEntropy:
    """Build the objective."""
    return CrossEntropy(model, config.label_smoothing)
