"""BLEU (Papineni et al. 2002), by sacreBLEU."""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import MetricConfig, Tokenizer
from mt.evaluation.scoring import SacreBleuMetric, make_bleu


class Config(MetricConfig):
    """What it takes for a word."""

    kind: Literal["bleu"] = "bleu"
    tokenize: Tokenizer | None = None
    """sacreBLEU's tokenizer; that of `evaluation.tokenize` when left out."""
    lowercase: bool | None = None
    """Compare lower-cased text; as `evaluation.lowercase` says when left out."""

    title: ClassVar[str] = "BLEU"


def build(config: Config, target_language: str) -> SacreBleuMetric:
    """Return the metric."""
    return make_bleu(config.tokenize or "auto", bool(config.lowercase), target_language)
