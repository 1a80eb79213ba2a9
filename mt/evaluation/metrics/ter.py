"""TER: edits and shifts for a word of the reference (Snover et al. 2006), by sacreBLEU.

Capitals do not count. Text without spaces is split into words by `asian_support` only.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import MetricConfig
from mt.data.languages import sentence_separator
from mt.evaluation.scoring import SacreBleuMetric


class Config(MetricConfig):
    """Nothing to choose but a name."""

    kind: Literal["ter"] = "ter"

    title: ClassVar[str] = "TER"

    @property
    def higher_is_better(self) -> bool:
        """Fewer edits are better."""
        return False


def build(config: Config, target_language: str) -> SacreBleuMetric:
    """Return the metric."""
    from sacrebleu.metrics import TER

    asian = not sentence_separator(target_language)
    return SacreBleuMetric(TER(normalized=asian, asian_support=asian))
