"""Beam search: the N most probable prefixes of each sentence grow by one token a step.

See `mt.decoding.beam_core` for the algorithm; all beams are one group.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mt.config.section import MAX_HYPOTHESES
from mt.decoding.candidates import RankingConfig
from mt.decoding.types import Search


class Config(RankingConfig):
    """Keeps several hypotheses and ranks those that ended by length-penalised probability."""

    kind: str = "beam"
    beams: int = Field(5, ge=1, le=MAX_HYPOTHESES)
    """Hypotheses kept a sentence."""
    stop: Literal["finished", "bound"] = "finished"
    """A sentence ends with as many finished hypotheses as beams, or when none can be bettered."""
    patience: float = Field(1.0, gt=0, le=1000)
    """With `stop: finished`: that many times as many finished hypotheses end a sentence."""

    @model_validator(mode="after")
    def _patience_counts(self) -> Config:
        if self.stop == "bound" and self.patience != 1.0:
            raise ValueError("patience: counts finished hypotheses, which `stop: bound` does not")
        return self


def build(config: Config) -> Search:
    """The search of this configuration."""
    from mt.decoding.beam_core import BeamSearch

    enough = max(1, round(config.beams * config.patience))
    return BeamSearch(config, config.beams, enough=None if config.stop == "bound" else enough)
