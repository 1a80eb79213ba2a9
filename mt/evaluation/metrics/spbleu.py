"""spBLEU: BLEU of the pieces of FLORES-200's SentencePiece model (Goyal et al. 2022), by sacreBLEU.

The same pieces for every language; sacreBLEU downloads the model once.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import MetricConfig
from mt.evaluation.scoring import SacreBleuMetric, make_bleu


class Config(MetricConfig):
    """Whether capitals count."""

    kind: Literal["spbleu"] = "spbleu"
    lowercase: bool | None = None
    """Compare lower-cased text; as `evaluation.lowercase` says when left out."""

    title: ClassVar[str] = "spBLEU"


def build(config: Config, target_language: str) -> SacreBleuMetric:
    """Return the metric."""
    return make_bleu("flores200", bool(config.lowercase), target_language)
