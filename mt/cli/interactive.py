"""Interactive translation: read a line from the terminal, show its translation.

Pieces are coloured by probability. Below them a map shows the attention of each target piece (down)
over the source pieces (across).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mt.attention_maps.terminal import translation_lines
from mt.decoding.types import Engine, EngineOptions
from mt.errors import ConfigError, DataError
from mt.runtime import signals
from mt.runtime.console import print_line

if TYPE_CHECKING:
    from rich.console import Console

PROMPT = "> "


def translate_interactively(engine: Engine, options: EngineOptions) -> None:
    """Translate typed lines until Ctrl-D or Ctrl-C; NO_COLOR turns colours off."""
    from rich.console import Console

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` line editing and a history)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    print_line("mt: one line to translate at a time; Ctrl-D ends")
    options = replace(options, alignments=True, line_buffered=True)
    try:
        for line in _read_lines():
            try:
                options = _translate_line(engine, line, options, console)
            except DataError as error:  # concerns this line only
                print_line(str(error).splitlines()[0])
    except KeyboardInterrupt:  # a normal way to end
        sys.stdout.write("\n")


def _read_lines() -> Iterator[str]:
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    while True:
        try:
            # Without polling, a Ctrl-C just before the wait for a key is seen at the next key.
            with signals.poll_signals():
                line = input(PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return
        yield line


def _translate_line(
    engine: Engine, line: str, options: EngineOptions, console: Console
) -> EngineOptions:
    """Show the translation of a line; returns the options that the engine supports."""
    try:
        (translation,) = engine.translate([line], options)
    except ConfigError:
        if not options.alignments:
            raise
        options = replace(options, alignments=False)  # the model has no attention
        (translation,) = engine.translate([line], options)
    for shown in translation_lines(translation, console.width):
        console.print(shown)
    return options
