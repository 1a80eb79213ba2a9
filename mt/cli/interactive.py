"""A conversation at a terminal: a line typed, its translation, how sure of it the model is.

Pieces are coloured by their probability, and below them a map of the attention shows what each
piece of the translation (down) looked at in the source (across).
"""

from __future__ import annotations

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
    """Translate what is typed, line by line, until Ctrl-D or Ctrl-C.

    Colours are left out where NO_COLOR is set or the terminal has none.
    """
    import contextlib

    from rich.console import Console

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (makes `input` edit lines and remember them)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    print_line("mt: one line to translate at a time; Ctrl-D ends")
    options = replace(options, alignments=True, line_buffered=True)
    try:
        for line in _read_lines():
            try:
                options = _translate_line(engine, line, options, console)
            except DataError as error:  # of this line; the next may be better
                print_line(str(error).splitlines()[0])
    except KeyboardInterrupt:  # wherever it comes: the conversation has ended well
        sys.stdout.write("\n")


def _read_lines() -> Iterator[str]:
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    while True:
        try:
            # A Ctrl-C between the prompt and the wait for a key would be seen at the next key.
            with signals.poll_signals():
                line = input(PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return
        yield line


def _translate_line(
    engine: Engine, line: str, options: EngineOptions, console: Console
) -> EngineOptions:
    """Show the translation of a line; gives back the options with what the engine can do."""
    try:
        (found,) = engine.translate([line], options)
    except ConfigError:
        if not options.alignments:
            raise
        options = replace(options, alignments=False)  # a model without attention
        (found,) = engine.translate([line], options)
    for shown in translation_lines(found, console.width):
        console.print(shown)
    return options
