"""Maps of the cross-attention of some translations: computed by the model, drawn as small SVGs.

A map is the mean over the heads of the last layer, for the translation that was kept: the model
reads it as given, so nothing is translated.

Legend: H heads, T target pieces, S source pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from markupsafe import Markup

from mt.attention_maps.extract import extract, open_with_attention
from mt.decoding.text_translator import TextTranslator
from mt.decoding.types import EngineOptions
from mt.decoding.word_alignment import display_pieces
from mt.errors import ConfigError, DataError, printable

LEVELS = 9
"""Shades of a cell; a weight of less than half a shade is no cell."""
MOST_PIECES = 60
"""Pieces of a side; a map of more is too large to be read."""
LONGEST_LABEL = 12
"""Characters of a piece that are shown."""
CELL, LEFT, TOP = 10, 72, 60
"""Of a map, in pixels: a cell, and the space for the pieces of target and source."""


class AttentionMap(TypedDict):
    """The cross-attention of a sentence."""

    source: list[str]
    target: list[str]
    """The pieces, ends included."""
    weights: list[str]
    """A line of digits for each target piece, one for each source piece: weights from 0 to 1 in
    `LEVELS` steps."""


def collect_maps(
    path: Path, pairs: Sequence[tuple[str, str]], language: str
) -> list[AttentionMap | None]:
    """Return the map of each (source, translation) of a run.

    None for a pair that is blank or too long, and for all where the model has no attention to its
    source.

    Raises:
        MtError: the model cannot be opened.
    """
    # The products are small: beside other processes two threads took 70 s for 50 maps, one 2 s.
    options = EngineOptions(precision="fp32", threads=1, target_language=language)
    try:
        engine = open_with_attention(path, options)
        return [_collect_map(engine, source, target) for source, target in pairs]
    except ConfigError as error:
        if error.code != "ATTENTION":
            raise
        return [None] * len(pairs)


def _collect_map(engine: TextTranslator, source: str, target: str) -> AttentionMap | None:
    try:
        (maps,) = extract(engine, source, target)
    except DataError:  # blank, or longer than the model has room for
        return None
    rows, columns = maps.axes("cross")
    layers = [layer for layer in maps.maps.get("cross", ()) if len(layer)]  # heads may be pruned
    if not layers or max(len(rows), len(columns)) > MOST_PIECES:
        return None
    weights = layers[-1].mean(axis=0)  # [H, T, S] -> [T, S]
    return {
        "source": _labels(columns), "target": _labels(rows),
        "weights": ["".join(str(round(w * LEVELS)) for w in row) for row in weights.tolist()],
    }  # fmt: skip


def _labels(pieces: Sequence[str]) -> list[str]:
    return [
        text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
        for text in (printable(piece) for piece in display_pieces(pieces))
    ]


def draw_map(found: AttentionMap) -> Markup:
    """Return a map as SVG: target pieces in rows, source pieces in columns, dark is much."""
    width = LEFT + CELL * len(found["source"]) + TOP // 2  # labels lean to the right
    height = TOP + CELL * len(found["target"]) + 4
    size = Markup('viewBox="0 0 {0} {1}" width="{0}" height="{1}"').format(width, height)
    about = "attention of each piece of the translation to those of the source"
    column = Markup('<text transform="translate({} {})rotate(-60)">{}</text>')
    row = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
    parts = [Markup('<svg class="map" {} role="img" aria-label="{}">').format(size, about)]
    parts += [
        column.format(LEFT + CELL * place + 8, TOP - 4, text)
        for place, text in enumerate(found["source"])
    ]
    parts += [
        row.format(LEFT - 4, TOP + CELL * place + 8, text)
        for place, text in enumerate(found["target"])
    ]
    parts.append(Markup('<g transform="translate({} {})scale({})">').format(LEFT, TOP, CELL))
    for level in range(1, LEVELS + 1):
        cells = "".join(
            f"M{x} {y}h1v1h-1z"
            for y, line in enumerate(found["weights"])
            for x, digit in enumerate(line)
            if digit == str(level)
        )
        if cells:
            parts.append(Markup('<path class="w{}" d="{}"/>').format(level, cells))
    return Markup("").join([*parts, Markup("</g></svg>")])
