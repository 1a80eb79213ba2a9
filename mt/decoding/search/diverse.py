"""Diverse beam search (Vijayakumar et al. 2018): groups of beams that avoid each other's tokens.

A candidate loses `diversity` for each beam of an earlier group that has just grown by the same
token (Hamming diversity). The penalty decides only which beams live: scores are the model's own.
Ends do not count: a group may end when others do. One group is beam search.

See `mt.decoding.beam_core` for the algorithm. A hypothesis of several groups is returned once.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from mt.config.section import MAX_FACTOR, MAX_HYPOTHESES
from mt.decoding.candidates import RankingConfig
from mt.decoding.types import Search


class Config(RankingConfig):
    """Beam search whose n-best list differs in more than a word."""

    kind: str = "diverse"
    beams: int = Field(6, ge=1, le=MAX_HYPOTHESES)
    """Hypotheses kept a sentence, of all groups."""
    groups: int = Field(3, ge=1, le=MAX_HYPOTHESES)
    """Groups that the beams are shared out to, equally."""
    diversity: float = Field(0.5, ge=0, le=MAX_FACTOR)
    """What a candidate loses for each beam of an earlier group that took the same token."""

    @model_validator(mode="after")
    def _groups_share_the_beams(self) -> Config:
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.groups} cannot share {self.beams} beams equally")
        return self


def build(config: Config) -> Search:
    """The search of this configuration."""
    from mt.decoding.beam_core import BeamSearch

    groups, enough = config.groups, config.beams // config.groups
    return BeamSearch(config, config.beams, groups, config.diversity, enough)
