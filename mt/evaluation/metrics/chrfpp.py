"""chrF2++: chrF2 with words and pairs of words (Popovic 2017), by sacreBLEU."""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import MetricConfig
from mt.evaluation.scoring import SacreBleuMetric, make_chrf


class Config(MetricConfig):
    """Whether capitals count."""

    kind: Literal["chrfpp"] = "chrfpp"
    lowercase: bool | None = None
    """Compare lower-cased text; as `evaluation.lowercase` says when left out."""

    title: ClassVar[str] = "chrF2++"


def build(config: Config, target_language: str) -> SacreBleuMetric:
    """Return the metric."""
    return make_chrf(bool(config.lowercase), word_order=2)
