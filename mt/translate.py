"""Lines in, lines out, through the engine that opens what lies at a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from mt.config import plugin, plugins
from mt.contracts import Engine, EngineOptions
from mt.errors import DataError, ModelError
from mt.files import decoded


def open_engine(path: Path, options: EngineOptions) -> Engine:
    """The engine of what lies at `path`: the first kind that accepts it.

    Raises:
        ModelError: none accepts it, or the one that does finds it damaged.
    """
    for kind in plugins("engines"):
        engine = plugin("engines", kind)
        if engine.accepts(path):
            return cast(Engine, engine.open(path, options))
    what = "not a run (no checkpoints in it)" if path.exists() else "no such run"
    advice = "give a run directory, a checkpoint folder in it, or what mt export made"
    raise ModelError("RUN-NONE", path, what, advice)


def translate_stream(
    engine: Engine, stream: BinaryIO, out: IO[str], options: EngineOptions | None = None,
    name: str = "input",
) -> int:  # fmt: skip
    """Translate a stream of UTF-8 lines, cut at `\\n` only: a line out for each line in, in order.

    What is done is written before the engine reads on, so that a slow reader's or a slow
    writer's next line never holds back the last.

    Args:
        engine: what translates.
        stream: bytes, where lines are read.
        out: where translations go.
        options: what is asked of the engine; by default what it was opened with.
        name: what the stream is called in an error.

    Returns:
        The number of lines.

    Raises:
        DataError: a line is not UTF-8; the translations of those before it have been written.
        BrokenPipeError: the reader of `out` has gone.
    """
    lines = _Lines(decoded(stream, name), out)
    count = 0
    for translation in engine.translate(lines, options):
        out.write(f"{translation.text}\n")
        count += 1
    out.flush()
    if lines.failure is not None:
        raise lines.failure
    return count


class _Lines:
    """Lines as an engine reads them; ends before the first bad one, which it remembers."""

    def __init__(self, lines: Iterable[str], out: IO[str]) -> None:
        self.lines, self.out = lines, out
        self.failure: DataError | None = None

    def __iter__(self) -> Iterator[str]:
        iterator = iter(self.lines)
        while True:
            self.out.flush()
            try:
                line = next(iterator)
            except StopIteration:
                return
            except DataError as error:
                self.failure = error
                return
            yield line


class Translator:
    """A model as Python sees it: the engine of the commands, opened once.

    Args:
        engine: what translates.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def translate(self, lines: Iterable[str]) -> list[str]:
        """The translation of each text, in order."""
        if isinstance(lines, str):
            raise TypeError("translate takes a list of texts, not one text")
        return [translation.text for translation in self.engine.translate(lines)]


def load(path: str | Path, **options: Any) -> Translator:
    """The model at a path, ready to translate: `mt.load("runs/x").translate(["..."])`.

    Args:
        path: a run directory, or a checkpoint folder in it.
        options: fields of `mt.contracts.EngineOptions`, such as `search={"beams": 8}`.

    Raises:
        ModelError: there is no model, or a damaged one.
    """
    return Translator(open_engine(Path(path), EngineOptions(**options)))
