"""Figures of translations that need no metric: copies of the source, repetitions, lengths."""

from __future__ import annotations

from collections.abc import Sequence

from mt.data.text import repeats


def output_figures(
    sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """Return the shares of copies and of repetitions, and the ratio of lengths.

    copied: translations that equal their sources of three words or more. repeated: translations
    with something five times in a row, which their references have not. length_ratio: characters
    of all translations over those of all references.
    """
    count = max(1, len(hypotheses))
    copied = sum(
        a.strip() == b.strip() and len(a.split()) > 2
        for a, b in zip(sources, hypotheses, strict=True)
    )
    repeated = sum(
        repeats(a) and not repeats(b) for a, b in zip(hypotheses, references, strict=True)
    )
    length = sum(map(len, hypotheses)) / max(1, sum(map(len, references)))
    return {"copied": copied / count, "repeated": repeated / count, "length_ratio": length}
