"""What runs of mt have reached on a similar number of pairs, to compare another run with.

The figures are those of `docs/benchmarks.md` and the pages beside it; `docs/reports.md` has the
same table. They are a comparison and no judgement: other text, languages and vocabularies have
other figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mt.config.recipe import Recipe

NEAR = 3.0
"""Times as many pairs, or as few, with which a run is still compared."""
Range = tuple[float, float]
"""The lowest and the highest; equal for one run."""


@dataclass(frozen=True)
class UsualResult:
    """What one or more runs on the same training text reached."""

    text: str
    """The kind of text."""
    direction: str
    """Languages, such as `en-de`."""
    pairs: int
    """Training pairs."""
    figures: Mapping[str, Range]
    """By their names: `validation BLEU`, `test chrF` ..."""
    invented: bool = False
    """Whether mt has invented the text: it is far easier than any real one."""
    pretrained: bool = False
    """Whether the runs began with the weights of another one."""

    def __str__(self) -> str:
        """Return it as a part of a sentence."""
        figures = ", ".join(f"{name} {_format(*each)}" for name, each in self.figures.items())
        begun = ", begun with other weights" if self.pretrained else ""
        return f"{self.pairs:,} pairs of {self.text}, {self.direction}{begun}: {figures}"


USUAL_RESULTS = (
    UsualResult(
        "invented sentences", "en-de", 120_000,
        {"validation perplexity": (1.29, 1.29), "validation BLEU": (89.6, 89.6),
         "validation chrF": (95.4, 95.4), "test BLEU": (93.0, 98.4), "test chrF": (96.8, 96.8)},
        invented=True,
    ),
    UsualResult(
        "image captions", "en-de", 29_000,
        {"validation BLEU": (36.8, 41.0), "test BLEU": (36.4, 40.1), "test chrF": (60.7, 63.6)},
    ),
    UsualResult("image captions", "de-en", 29_000, {"test BLEU": (41.4, 41.4)}),
    UsualResult("image captions", "en-de", 5_000, {"test BLEU": (20.4, 23.0)}),
    UsualResult(
        "image captions", "en-de", 5_000, {"test BLEU": (27.0, 27.0)}, pretrained=True
    ),
    UsualResult("short everyday sentences", "de-en", 2_000, {"test BLEU": (7.8, 7.8)}),
)  # fmt: skip
"""Measured runs."""


def find_usual(recipe: Recipe, pairs: int) -> UsualResult | None:
    """Return the runs that are most like those of a recipe; None where none is like them."""
    invented = all(source.kind == "demo" for source in recipe.data.train)
    pretrained = recipe.training.initialise_from is not None
    direction = f"{recipe.direction.source}-{recipe.direction.target}"

    def distance(each: UsualResult) -> tuple[float, bool, bool]:
        ratio = abs(math.log(each.pairs / max(1, pairs)))
        return round(ratio, 6), each.pretrained != pretrained, each.direction != direction

    nearest = min((each for each in USUAL_RESULTS if each.invented == invented), key=distance)
    return nearest if distance(nearest)[0] <= math.log(NEAR) else None


def compare_with_usual(
    recipe: Recipe, pairs: int | None, validations: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return the best validation of a run beside what similar runs reached, as one line.

    None where nothing is similar, or the run has not translated in a validation.
    """
    usual = None if pairs is None else find_usual(recipe, pairs)
    scored = [each for each in validations if each.get("valid_bleu") is not None]
    if usual is None or not scored:
        return None
    best = max(scored, key=lambda each: each["valid_bleu"])
    figures = [
        f"{name} {best[key]:.{digits}f}"
        for name, key, digits in (
            ("BLEU", "valid_bleu", 1), ("chrF", "valid_chrf", 1),
            ("perplexity", "valid_perplexity", 2),
        )
        if best.get(key) is not None
    ]  # fmt: skip
    return f"validation {', '.join(figures)}; runs of mt on {usual}"


def _format(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
