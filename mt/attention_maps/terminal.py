"""Attention maps and translations as coloured lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mt.attention_maps.extract import PARTS, AttentionMaps, head_title, select_maps
from mt.decoding import word_alignment
from mt.decoding.types import Translation
from mt.decoding.word_alignment import WORD_START, display_pieces
from mt.errors import printable
from mt.runtime import files

if TYPE_CHECKING:
    from rich.text import Text


def print_lines(
    sights: Sequence[AttentionMaps], part: str, layer: int | None = None, head: int | None = None
) -> None:
    """Write the lines of `terminal_lines` to standard output, coloured where it has colours."""
    from rich.console import Console

    with files.open_output(None) as out:
        console = Console(file=out, highlight=False, soft_wrap=True)
        for line in terminal_lines(sights, part, layer, head, console.width):
            console.print(line)


def terminal_lines(
    sights: Sequence[AttentionMaps], part: str, layer: int | None, head: int | None, width: int
) -> Iterator[Text]:
    """The same for a terminal of so many columns: all heads in figures, some as maps of the best.

    Raises:
        ConfigError: there is no such part, layer or head.
    """
    from rich.text import Text

    best = sights[0]
    maps = select_maps(best, part, layer, head)
    alternatives = tuple(sight.translation for sight in sights)
    found = replace(best.translation, alternatives=alternatives, alignment=None)
    yield from translation_lines(found, width)
    yield Text(f"  {word_alignment.format_pharaoh(best.translation)}", style="dim")
    for each in PARTS:
        if each in best.maps:
            yield Text()
            yield from _head_lines(best, each)
    rows, columns = (display_pieces(axis) for axis in best.axes(part))
    told = best.heads(part)
    for number, place, weights in maps:
        yield Text()
        yield Text(f"{PARTS[part]}, {head_title(number, place, *told[number - 1][place - 1])}")
        yield from shaded_rows(right_align(rows), columns, weights.tolist(), width)


def _head_lines(sight: AttentionMaps, part: str) -> Iterator[Text]:
    """Confidence and entropy of each head of a part, a line a layer, in the colour of the first."""
    from rich.text import Text

    yield Text(f"{PARTS[part]}: confidence (entropy in bits) of each head")
    for number, heads in enumerate(sight.heads(part), start=1):
        line = Text(f"  layer {number:<2}", style="dim")
        for bits, sure in heads:
            line.append(f"  {sure:4.2f}", style=colour(sure))
            line.append(f" ({bits:.1f})", style="dim")
        yield line


PROBABILITY_COLOURS = ((0.9, "green"), (0.6, "yellow"), (0.3, "dark_orange"), (0.0, "red"))
"""The colour of a piece of at least this probability."""
SHADES = " ░▒▓█"
"""How much of a row's attention a cell has, from none to all."""
SHADE_STYLE = "cyan"
MAX_PIECE_LENGTH = 12
"""Most characters of a piece in the map."""


def translation_lines(found: Translation, width: int) -> Iterator[Text]:
    """What is shown of a translation on a terminal of so many columns."""
    from rich.text import Text

    yield coloured_pieces(found) if found.tokens else Text(printable(found.text, 10_000))
    for other in found.alternatives[1:]:
        yield Text(f"  {other.score:8.3f}  {printable(other.text, 10_000)}", style="dim")
    if found.tokens and found.alignment:
        yield from attention_lines(found, width)


def coloured_pieces(found: Translation) -> Text:
    """A translation, each piece in the colour of its probability, and its score."""
    from rich.text import Text

    text = Text()
    for piece, gain in zip(found.tokens, found.log_probabilities, strict=False):
        shown = printable(piece.replace(WORD_START, " "), 10_000)
        text.append(shown if len(text) else shown.lstrip(" "), style=_colour(gain))
    if text.plain != found.text.strip():  # pieces that are bytes, or that were put together
        text = Text(printable(found.text, 10_000), style=_colour(_mean(found.log_probabilities)))
    return text.append(f"   ({found.score:.3f})", style="dim")


def _mean(gains: Sequence[float]) -> float:
    return math.fsum(gains) / max(1, len(gains))


def _colour(gain: float) -> str:
    return colour(math.exp(gain))


def colour(share: float) -> str:
    """The colour of a probability, or of how sure a head is."""
    return next((name for least, name in PROBABILITY_COLOURS if share >= least), "red")


def attention_lines(found: Translation, width: int) -> Iterator[Text]:
    """Source pieces across, target pieces down, each with its probability; shaded by attention."""
    margins = right_align(display_pieces(found.tokens))
    for row, gain in zip(margins, found.log_probabilities, strict=False):
        row.stylize(_colour(gain))
        row.append(f" {math.exp(gain):4.2f}", style="dim")
    return shaded_rows(margins, display_pieces(found.source_tokens), found.alignment or (), width)


def right_align(names: Sequence[str]) -> list[Text]:
    """Names of pieces as the margin of a map, all equally wide."""
    from rich.cells import cell_len
    from rich.text import Text

    shown = [_short(name) for name in names]
    widest = max(map(cell_len, shown), default=0)
    return [Text(" " * (widest - cell_len(name)) + name) for name in shown]


def shaded_rows(
    margins: Sequence[Text], columns: Sequence[str], shares: Sequence[Sequence[float]], width: int
) -> Iterator[Text]:
    """Rows of shares [T, S], shaded, each behind its margin, the columns named above.

    A map wider than the terminal is cut into several, one below the other.
    """
    from rich.cells import cell_len

    names = [_short(column) for column in columns]
    margin = margins[0].cell_len + 1
    start = 0
    while start < len(names):
        end, used = start, margin
        while end < len(names) and (end == start or used + cell_len(names[end]) < width):
            used += cell_len(names[end]) + 1
            end += 1
        yield from _column_band(margins, names, shares, slice(start, end))
        start = end


def _column_band(
    margins: Sequence[Text], names: Sequence[str], shares: Sequence[Sequence[float]], part: slice
) -> Iterator[Text]:
    """The map of some of the columns."""
    from rich.cells import cell_len
    from rich.text import Text

    yield Text(" " * (margins[0].cell_len + 1) + " ".join(names[part]), style="dim")
    for margin, row in zip(margins, shares, strict=True):
        cells = [_shade(s) * cell_len(n) for s, n in zip(row[part], names[part], strict=True)]
        yield margin.copy().append(" ").append(" ".join(cells), style=SHADE_STYLE)


def _shade(share: float) -> str:
    return SHADES[min(len(SHADES) - 1, math.ceil(share * len(SHADES) - 0.5))]


def _short(piece: str) -> str:
    """A piece as the map shows it: no control characters, and not too long."""
    return printable(piece, MAX_PIECE_LENGTH)
