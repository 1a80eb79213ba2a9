"""Pairs that came before; the first one is kept.

By default case, spaces and punctuation do not count. With `sides: target` (or `source`) a repeated
target is dropped whatever its source, as mozilla/translations does (its change 1201). 8 bytes a
pair are remembered.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, Filter, Texts, Value
from mt.data.duplicates import HashSet, hash_texts, normal_form


class Config(FilterConfig):
    """What counts as equal."""

    kind: Literal["duplicates"] = "duplicates"
    form: Literal["normalised", "exact"] = "normalised"
    """`normalised`: without case, spaces, punctuation and symbols; `exact`: as it stands."""
    sides: Literal["pair", "source", "target"] = "pair"
    """Which side is compared, or both together."""

    order: ClassVar[Literal["any", "kept", "all"]] = "kept"
    compares_sides: ClassVar[bool] = False


class _Seen:
    """The pairs that came before."""

    def __init__(self, config: Config) -> None:
        self.config, self.hashes = config, HashSet()

    def check(self, sources: Texts, targets: Texts) -> list[Value | None]:
        if self.config.form == "normalised":
            sources, targets = [*map(normal_form, sources)], [*map(normal_form, targets)]
        sides = self.config.sides
        pairs = (f"{a}\n{b}" for a, b in zip(sources, targets, strict=True))
        texts = {"pair": pairs, "source": sources, "target": targets}[sides]
        return [sides if again else None for again in self.hashes.add(hash_texts(texts)).tolist()]


def build(config: Config, context: Context) -> Filter:
    """Return the filter, which remembers what it has checked."""
    return _Seen(config)
