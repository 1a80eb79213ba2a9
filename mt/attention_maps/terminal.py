"""Attention maps and translations as coloured lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mt.attention_maps.extract import PARTS, AttentionMaps, head_title, select_maps
from mt.decoding.types import Translation
from mt.decoding.word_alignment import WORD_START, display_pieces, format_pharaoh
from mt.errors import printable
from mt.runtime import output

if TYPE_CHECKING:
    from rich.text import Text

PROBABILITY_COLOURS = ((0.9, "green"), (0.6, "yellow"), (0.3, "dark_orange"), (0.0, "red"))
"""The colour of a piece of at least this probability."""
SHADES = " ░▒▓█"
"""Cells by their share of a row's attention, from 0 to 1."""
SHADE_STYLE = "cyan"
MAX_PIECE_LENGTH, MAX_TEXT_LENGTH = 12, 10_000
"""Most characters of a piece in a map, and of a text."""


def print_lines(
    alternatives: Sequence[AttentionMaps], part: str, layer: int | None = None,
    head: int | None = None,
) -> None:  # fmt: skip
    """Write `terminal_lines` to standard output, coloured where it has colours."""
    from rich.console import Console

    with output.open_output(None) as out:
        console = Console(file=out, highlight=False, soft_wrap=True)
        for line in terminal_lines(alternatives, part, layer, head, console.width):
            console.print(line)


def terminal_lines(
    alternatives: Sequence[AttentionMaps], part: str, layer: int | None, head: int | None,
    width: int,
) -> Iterator[Text]:  # fmt: skip
    """Figures of all heads of the best alternative, and some maps, for `width` columns.

    Raises:
        ConfigError: there is no such part, layer or head.
    """
    from rich.text import Text

    best = alternatives[0]
    selected = select_maps(best, part, layer, head)
    translations = tuple(each.translation for each in alternatives)
    shown = replace(best.translation, alternatives=translations, alignment=None)
    yield from translation_lines(shown, width)
    yield Text(f"  {format_pharaoh(best.translation)}", style="dim")
    for each in PARTS:
        if each in best.maps:
            yield Text()
            yield from _head_lines(best, each)
    rows, columns = (display_pieces(axis) for axis in best.axes(part))
    figures = best.heads(part)
    for number, place, weights in selected:
        yield Text()
        yield Text(f"{PARTS[part]}, {head_title(number, place, *figures[number - 1][place - 1])}")
        yield from shaded_rows(right_align(rows), columns, weights.tolist(), width)


def _head_lines(maps: AttentionMaps, part: str) -> Iterator[Text]:
    """Confidence and entropy of each head of a part, a line a layer, coloured by confidence."""
    from rich.text import Text

    yield Text(f"{PARTS[part]}: confidence (entropy in bits) of each head")
    for number, heads in enumerate(maps.heads(part), start=1):
        line = Text(f"  layer {number:<2}", style="dim")
        for bits, confidence in heads:
            line.append(f"  {confidence:4.2f}", style=_colour(confidence))
            line.append(f" ({bits:.1f})", style="dim")
        yield line


def translation_lines(translation: Translation, width: int) -> Iterator[Text]:
    """A translation, its alternatives and its alignment, for a terminal of `width` columns."""
    from rich.text import Text

    if translation.tokens:
        yield coloured_pieces(translation)
    else:
        yield Text(printable(translation.text, MAX_TEXT_LENGTH))
    for other in translation.alternatives[1:]:
        text = printable(other.text, MAX_TEXT_LENGTH)
        yield Text(f"  {other.score:8.3f}  {text}", style="dim")
    if translation.tokens and translation.alignment:
        yield from attention_lines(translation, width)


def coloured_pieces(translation: Translation) -> Text:
    """A translation, each piece in the colour of its probability, and its score."""
    from rich.text import Text

    log_probs, text = translation.log_probabilities, Text()
    for piece, value in zip(translation.tokens, log_probs, strict=False):
        shown = printable(piece.replace(WORD_START, " "), MAX_TEXT_LENGTH)
        text.append(shown if len(text) else shown.lstrip(" "), style=_colour(math.exp(value)))
    if text.plain != translation.text.strip():  # of byte pieces, or of several sentences
        mean = math.fsum(log_probs) / max(1, len(log_probs))
        text = Text(printable(translation.text, MAX_TEXT_LENGTH), style=_colour(math.exp(mean)))
    return text.append(f"   ({translation.score:.3f})", style="dim")


def _colour(share: float) -> str:
    """The colour of a probability or a confidence."""
    return next((name for least, name in PROBABILITY_COLOURS if share >= least), "red")


def attention_lines(translation: Translation, width: int) -> Iterator[Text]:
    """Source pieces across, target pieces down, each with its probability; shaded by attention."""
    margins = right_align(display_pieces(translation.tokens))
    for row, value in zip(margins, translation.log_probabilities, strict=False):
        row.stylize(_colour(math.exp(value)))
        row.append(f" {math.exp(value):4.2f}", style="dim")
    columns = display_pieces(translation.source_tokens)
    return shaded_rows(margins, columns, translation.alignment or (), width)


def right_align(names: Sequence[str]) -> list[Text]:
    """Names of pieces as the margin of a map, all equally wide."""
    from rich.cells import cell_len
    from rich.text import Text

    shown = [printable(name, MAX_PIECE_LENGTH) for name in names]
    widest = max(map(cell_len, shown), default=0)
    return [Text(" " * (widest - cell_len(name)) + name) for name in shown]


def shaded_rows(
    margins: Sequence[Text], columns: Sequence[str], shares: Sequence[Sequence[float]], width: int
) -> Iterator[Text]:
    """Rows of shares [T, S], shaded, each behind its margin, the columns named above.

    A map wider than the terminal is split into several, one below the other.
    """
    from rich.cells import cell_len
    from rich.text import Text

    names = [printable(column, MAX_PIECE_LENGTH) for column in columns]
    margin = margins[0].cell_len + 1
    start = 0
    while start < len(names):
        end, used = start, margin
        while end < len(names) and (end == start or used + cell_len(names[end]) < width):
            used += cell_len(names[end]) + 1
            end += 1
        band = names[start:end]
        yield Text(" " * margin + " ".join(band), style="dim")
        for label, row in zip(margins, shares, strict=True):
            cells = [_shade(s) * cell_len(n) for s, n in zip(row[start:end], band, strict=True)]
            yield label.copy().append(" ").append(" ".join(cells), style=SHADE_STYLE)
        start = end


def _shade(share: float) -> str:
    return SHADES[min(len(SHADES) - 1, math.ceil(share * len(SHADES) - 0.5))]
