"""Training pairs that are in a validation or test set.

`data.drop_overlap` drops those that are the same for the vocabulary; here case, spaces and
punctuation do not count either, and one side alone can be compared.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, Filter, Texts, Value
from mt.data.duplicates import HashSet, hash_texts, normal_form


class Config(FilterConfig):
    """What counts as equal."""

    kind: Literal["overlap"] = "overlap"
    form: Literal["normalised", "exact"] = "normalised"
    """`normalised`: without case, spaces, punctuation and symbols; `exact`: as it stands."""
    sides: Literal["pair", "source", "target", "either"] = "pair"
    """`pair`: both sides of one held-out pair; `source` or `target`: this side of any of them;
    `either`: one of the two."""

    needs_held_out: ClassVar[bool] = True


class _HeldOut:
    """The hashes of held-out pairs and of their sides."""

    def __init__(self, config: Config, pairs: Texts, sources: Texts, targets: Texts) -> None:
        self.config = config
        sides = {"pair": pairs, "source": sources, "target": targets}
        wanted = ("source", "target") if config.sides == "either" else (config.sides,)
        self.sets = {side: HashSet() for side in wanted}
        for side, hashes in self.sets.items():
            hashes.add(hash_texts(sides[side]))

    def check(self, sources: Texts, targets: Texts) -> list[Value | None]:
        values: list[Value | None] = [None] * len(sources)
        forms = _forms(self.config, sources, targets)
        texts = dict(zip(("pair", "source", "target"), forms, strict=True))
        for side, hashes in self.sets.items():
            for row in hashes.contains(hash_texts(texts[side])).nonzero()[0].tolist():
                values[row] = values[row] or side
        return values


def _forms(config: Config, sources: Texts, targets: Texts) -> tuple[Texts, Texts, Texts]:
    """Return the texts that are compared: of pairs, of sources and of targets."""
    if config.form == "normalised":
        sources, targets = [*map(normal_form, sources)], [*map(normal_form, targets)]
    pairs = [f"{a}\n{b}" for a, b in zip(sources, targets, strict=True)]
    return pairs, sources, targets


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    if not context.held_out:
        context.note("has no validation or test pairs to compare with")
    sources, targets = ([pair[side] for pair in context.held_out] for side in (0, 1))
    return _HeldOut(config, *_forms(config, sources, targets))
