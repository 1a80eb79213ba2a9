"""Minimum Bayes risk: of some candidates the one that is most like all the others, by chrF.

The candidates of another search represent the model's distribution. The expected utility of a
candidate is its mean chrF2 (as sacreBLEU computes it) with all of them, itself included, as
references (Eikema and Aziz 2020). A text that was sampled several times is one hypothesis and
several references. Expected utility, 0 to 100, is the score; the log-probabilities are those of
the first candidate with this text.

Legend: B sentences, N candidates, T most tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mt.config.plugins import Plugin, plugin
from mt.config.schema import SearchConfig
from mt.config.section import MAX_HYPOTHESES
from mt.decoding.candidates import NEG_INF, first_hypotheses, sort_by_score
from mt.decoding.types import Decoder, Hypotheses, Request, Search
from mt.errors import ConfigError
from mt.special_tokens import PAD

if TYPE_CHECKING:
    from torch import Tensor


class Config(SearchConfig):
    """Chooses among many candidates the one that is most like the others."""

    kind: str = "mbr"
    samples: int = Field(32, ge=1, le=MAX_HYPOTHESES)
    """Number of candidates of the other search."""
    candidates: Annotated[SearchConfig, Plugin("search", "sampling", without=("mbr",))] = Field(
        default={"kind": "sampling", "epsilon": 0.02}, validate_default=True
    )
    """The search that finds the candidates; its lengths are those of this one."""

    @property
    def beams(self) -> int:
        """Rows a sentence takes in a batch."""
        return max(self.samples, getattr(self.candidates, "beams", 1))


def build(config: Config) -> Search:
    """The search of this configuration."""
    inner: Search = plugin("search", config.candidates.kind).build(config.candidates)
    return partial(search, config, inner)


def search(config: Config, inner: Search, decoder: Decoder, request: Request) -> Hypotheses:
    """The `n_best` hypotheses of each sentence with the greatest expected utility.

    Raises:
        ConfigError: `n_best` exceeds the samples, the request has no texts, or the candidate
            search refuses.
    """
    if request.n_best > config.samples:
        what = f"{config.samples} samples cannot give {request.n_best} hypotheses"
        raise ConfigError("SEARCH", "search.samples", what, "ask for fewer, or set more samples")
    if request.texts is None:
        what = "it compares texts, and here are only ids"
        raise ConfigError("SEARCH", "search.kind", what, "set search.kind=beam")
    candidates = inner(decoder, replace(request, n_best=config.samples, texts=None))
    texts = _texts(request.texts, candidates)
    scores = candidates.scores.new_full(candidates.scores.shape, NEG_INF)
    for row, places, utilities in _expected_utilities(texts):
        scores[row, places] = scores.new_tensor(utilities)
    return first_hypotheses(sort_by_score(scores, candidates), request.n_best)


def _texts(
    decode: Callable[[Sequence[Sequence[int]]], list[str]], candidates: Hypotheses
) -> list[list[str | None]]:
    """The text of each hypothesis of each sentence, None where there is none."""
    real: Tensor = candidates.scores.isfinite()  # [B, N]
    ids = [[t for t in tokens if t != PAD] for tokens in candidates.tokens[real].tolist()]
    texts = iter(decode(ids))
    return [[next(texts) if exists else None for exists in row] for row in real.tolist()]


def _expected_utilities(
    texts: Sequence[Sequence[str | None]],
) -> list[tuple[int, list[int], list[float]]]:
    """For each sentence its row, the first place of each different text, and their utilities."""
    pairwise_chrf = _fastchrf()
    rows = [row for row, each in enumerate(texts) if any(text is not None for text in each)]
    if not rows:
        return []
    counts = [Counter(text for text in texts[row] if text is not None) for row in rows]
    different = [list(each) for each in counts]
    utilities = []
    for row, each, table in zip(rows, counts, pairwise_chrf(different, different), strict=True):
        weighted = [
            sum(count * value for count, value in zip(each.values(), line, strict=True))
            for line in table
        ]
        means = [total / each.total() for total in weighted]
        utilities.append((row, [texts[row].index(text) for text in each], means))
    return utilities


def _fastchrf() -> Callable[[list[list[str]], list[list[str]]], list[list[list[float]]]]:
    """The library's `pairwise_chrf`: hypotheses and references of each sentence to a table.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from fastchrf import pairwise_chrf
    except ImportError:
        what = "mbr needs the package fastchrf, which is not installed"
        raise ConfigError("SEARCH", "search.kind", what, "pip install 'mt[mbr]'") from None
    return pairwise_chrf
