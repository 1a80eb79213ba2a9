"""A conversation at a terminal: a line typed, its translation, how sure of it the model is.

Pieces are coloured by their probability, and below them a map of the attention shows what each
piece of the translation (down) looked at in the source (across).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mt.decoding.output_formats import WORD_START, readable
from mt.errors import ConfigError, DataError, printable
from mt.interfaces import Engine, EngineOptions, Translation
from mt.runtime import signals
from mt.training import reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PROMPT = "> "
CERTAINTY = ((0.9, "green"), (0.6, "yellow"), (0.3, "dark_orange"), (0.0, "red"))
"""The colour of a piece of at least this probability."""
SHADES = " ░▒▓█"
"""How much of a row's attention a cell has, from none to all."""
SHADE_STYLE = "cyan"
LONGEST = 12
"""Most characters of a piece in the map."""


def converse(engine: Engine, options: EngineOptions) -> None:
    """Translate what is typed, line by line, until Ctrl-D or Ctrl-C.

    Colours are left out where NO_COLOR is set or the terminal has none.
    """
    import contextlib

    from rich.console import Console

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (makes `input` edit lines and remember them)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    reporter.say("mt: one line to translate at a time; Ctrl-D ends")
    options = replace(options, alignments=True, line_buffered=True)
    try:
        for line in _typed():
            try:
                options = _answer(engine, line, options, console)
            except DataError as error:  # of this line; the next may be better
                reporter.say(str(error).splitlines()[0])
    except KeyboardInterrupt:  # wherever it comes: the conversation has ended well
        sys.stdout.write("\n")


def _typed() -> Iterator[str]:
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    while True:
        try:
            # A Ctrl-C between the prompt and the wait for a key would be seen at the next key.
            with signals.woken():
                line = input(PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return
        yield line


def _answer(engine: Engine, line: str, options: EngineOptions, console: Console) -> EngineOptions:
    """Show the translation of a line; gives back the options with what the engine can do."""
    try:
        (found,) = engine.translate([line], options)
    except ConfigError:
        if not options.alignments:
            raise
        options = replace(options, alignments=False)  # a model without attention
        (found,) = engine.translate([line], options)
    for shown in shown_lines(found, console.width):
        console.print(shown)
    return options


def shown_lines(found: Translation, width: int) -> Iterator[Text]:
    """What is shown of a translation on a terminal of so many columns."""
    from rich.text import Text

    yield confident(found) if found.tokens else Text(printable(found.text, 10_000))
    for other in found.alternatives[1:]:
        yield Text(f"  {other.score:8.3f}  {printable(other.text, 10_000)}", style="dim")
    if found.tokens and found.alignment:
        yield from attention_map(found, width)


def confident(found: Translation) -> Text:
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
    return next((name for least, name in CERTAINTY if share >= least), "red")


# ---------------------------------------------------------------------------- the map


def attention_map(found: Translation, width: int) -> Iterator[Text]:
    """Source pieces across, target pieces down, each with its probability; shaded by attention."""
    margins = flush_right(readable(found.tokens))
    for row, gain in zip(margins, found.log_probabilities, strict=False):
        row.stylize(_colour(gain))
        row.append(f" {math.exp(gain):4.2f}", style="dim")
    return shaded_map(margins, readable(found.source_tokens), found.alignment or (), width)


def flush_right(names: Sequence[str]) -> list[Text]:
    """Names of pieces as the margin of a map, all equally wide."""
    from rich.cells import cell_len
    from rich.text import Text

    shown = [_short(name) for name in names]
    widest = max(map(cell_len, shown), default=0)
    return [Text(" " * (widest - cell_len(name)) + name) for name in shown]


def shaded_map(
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
        yield from _band(margins, names, shares, slice(start, end))
        start = end


def _band(
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
    return printable(piece, LONGEST)
