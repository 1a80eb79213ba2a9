"""Lines in, lines out, through the engine that opens what lies at a path."""

from __future__ import annotations

import math
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast, overload

from mt.config.plugins import plugin, plugins, trust_models
from mt.data.pairs import Pair
from mt.decoding import output_formats
from mt.decoding.batching import LineWarnings
from mt.decoding.output_formats import Formatter
from mt.decoding.types import Engine, EngineOptions, Score, Translation
from mt.errors import DataError, ModelError
from mt.runtime import console, text_files
from mt.runtime.device import physical_cores
from mt.runtime.text_files import decode_lines

MAX_PROCESSES = 8
"""Most processes by default."""
BYTES_PER_PROCESS = 16 << 10
"""Bytes of text that make a process worth its start."""


def open_engine(path: Path, options: EngineOptions) -> Engine:
    """The engine of what lies at `path`: the first kind that accepts it.

    Raises:
        ModelError: none accepts it, or it is damaged.
    """
    return cast(Engine, plugin("engines", engine_kind(path)).open(path, options))


def engine_kind(path: Path) -> str:
    """The first kind of engine that accepts what lies at `path`.

    Raises:
        ModelError: none does.
    """
    for kind in plugins("engines"):
        if plugin("engines", kind).accepts(path):
            return kind
    what = "not a run (no checkpoints in it)" if path.exists() else "no such run"
    advice = "give a run directory, a checkpoint folder in it, or what mt export made"
    raise ModelError("RUN-NONE", path, what, advice)


def default_processes(device: str | None = None) -> int:
    """The number of processes for long work: one a core of a CPU, one on a GPU.

    Two of one thread each are faster than one of two; each costs as much memory and start again.
    """
    on_cpu = device == "cpu" or not Path("/dev/nvidiactl").exists()
    return min(physical_cores(), MAX_PROCESSES) if on_cpu else 1


def check_processes(stream: BinaryIO) -> int:
    """The number of processes for a stream: one, but for a file of some size."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return 1
    if not stat.S_ISREG(status.st_mode):
        return 1
    return max(1, min(default_processes(), status.st_size // BYTES_PER_PROCESS))


def translate_lines(
    engine: Engine, stream: BinaryIO, out: IO[str], options: EngineOptions | None = None,
    name: str = "input", rendering: Formatter = output_formats.format_text,
    replace_bad: bool = False,
) -> int:  # fmt: skip
    """Translate a stream of UTF-8 lines, split at `\\n` only, in order; return their number.

    Each translation is written before the engine reads on, so that no slow reader or writer delays
    the translation of an earlier line.

    Args:
        options: by default those that the engine was opened with.
        name: of the stream, in an error.
        replace_bad: a byte that is not UTF-8 becomes U+FFFD, with one warning at the end.

    Raises:
        DataError: a line is not UTF-8; the translations before it have been written.
        BrokenPipeError: the reader of `out` has gone.
    """
    bad, truncated = LineWarnings(), LineWarnings()
    lines = _InputLines(decode_lines(stream, name, bad.add if replace_bad else None), out)
    count = 0
    try:
        for translation in engine.translate(lines, options):
            out.write(rendering(count, lines.pending.popleft(), translation) + "\n")
            count += 1
            if translation.truncated:
                truncated.add(count)
    except DataError:
        if lines.failure is None:  # else it follows from the early end of the input
            raise
    out.flush()
    if lines.failure is not None:
        raise lines.failure
    if truncated.count:
        what = f"length limits ended {_count_translations(truncated.count)}: {truncated}"
        advice = "search.max_length_ratio and search.max_length_extra raise it"
        console.print_line(f"mt: warning[TRUNCATED] {what}; {advice}")
    if bad.count:
        what = f"{bad.count} lines are not UTF-8; their bad bytes were read as U+FFFD"
        console.print_line(f"mt: warning[DATA-UTF8] {name}: {what}: {bad}")
    return count


def _count_translations(count: int) -> str:
    return f"{count} translation" + "s" * (count != 1)


class _InputLines:
    """Lines for an engine; they end before the first bad one, whose error is kept."""

    def __init__(self, lines: Iterable[str], out: IO[str]) -> None:
        self.lines, self.out = lines, out
        self.pending = deque[str]()
        """Read and not yet translated."""
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
            self.pending.append(line)
            yield line


def check_equal_lines(source: Path, target: Path) -> None:
    """Check that two files are UTF-8 and have equally many lines.

    Raises:
        DataError: one is missing or not UTF-8, or they differ in their number of lines.
    """
    counts = [sum(1 for _ in text_files.read_lines(path)) for path in (source, target)]
    if counts[0] != counts[1]:
        what = f"{counts[0]} lines against {counts[1]}"
        advice = "line n of one must translate line n of the other; mend the files"
        raise DataError("DATA-LINES", f"{source} and {target}", what, advice)


def score_files(
    engine: Engine, source: Path, target: Path, out: IO[str], as_json: bool = False,
    normalise: bool = False,
) -> None:  # fmt: skip
    """Write the score of each line of `target` as the translation of that line of `source`.

    The files have equally many lines (`check_equal_lines`). A summary goes to standard error.
    """
    rendering = output_formats.format_score_json if as_json else output_formats.format_score
    ours, theirs = tee(
        zip(text_files.read_lines(source), text_files.read_lines(target), strict=True)
    )
    pairs, tokens, total = 0, 0, 0.0
    for (line, other), score in zip(ours, engine.score(to_pairs(theirs)), strict=True):
        out.write(rendering(normalise, line, other, score) + "\n")
        pairs, tokens, total = pairs + 1, tokens + score.tokens, total + score.log_probability
    out.flush()
    if tokens:
        perplexity = math.exp(min(-total / tokens, 700.0))
        counts = f"{pairs} pairs, {tokens} tokens, log-probability {total:.2f}"
        console.print_line(f"mt: {counts}, perplexity {perplexity:.3f}")


OPEN_ONLY_OPTIONS = (
    "checkpoint", "device", "precision", "threads", "processes", "ensemble_paths",
)  # fmt: skip
"""The options of an engine that cannot change once it is open."""


class Translator:
    """A model in Python: the engine of the commands, opened once."""

    def __init__(self, engine: Engine, options: EngineOptions | None = None) -> None:
        self.engine, self.options = engine, options or EngineOptions()

    @overload
    def translate(
        self, lines: Iterable[str], details: Literal[False] = False, **options: Any
    ) -> list[str]: ...

    @overload
    def translate(
        self, lines: Iterable[str], details: Literal[True], **options: Any
    ) -> list[Translation]: ...

    def translate(
        self, lines: Iterable[str], details: bool = False, **options: Any
    ) -> list[str] | list[Translation]:
        """The translation of each text, in order.

        Args:
            details: return `mt.decoding.types.Translation`s, with scores, pieces and, on request,
                alternatives and alignments; by default the texts alone.
            options: fields of `mt.decoding.types.EngineOptions` for this call: `search`,
                `n_best`, `alignments`, `prefixes`, `seed` ...
        """
        if isinstance(lines, str):
            raise TypeError("translate takes a list of texts, not one text")
        if fixed := sorted(options.keys() & set(OPEN_ONLY_OPTIONS)):
            raise TypeError(f"{fixed[0]} is chosen when a model is opened: mt.load(path, ...)")
        if not details and (options.get("n_best", 1) > 1 or options.get("alignments")):
            raise TypeError("n_best and alignments need details=True")
        own = replace(self.options, token_scores=details)
        translations = self.engine.translate(lines, replace(own, **options))
        return list(translations) if details else [each.text for each in translations]

    def score(self, sources: Iterable[str], targets: Iterable[str]) -> list[Score]:
        """The log-probability of each target, given its source, in order.

        Raises:
            ValueError: there are more of one than of the other.
        """
        if isinstance(sources, str) or isinstance(targets, str):
            raise TypeError("score takes two lists of texts, not two texts")
        return list(self.engine.score(to_pairs(zip(sources, targets, strict=True))))


def to_pairs(texts: Iterable[tuple[str, str]]) -> Iterator[Pair]:
    """Sources and targets as pairs to score, lazily."""
    for number, (source, target) in enumerate(texts, start=1):
        yield Pair(source, target, "", "", f"line {number}")


def load(path: str | Path, trust: bool = False, **options: Any) -> Translator:
    """Open the model at a path: `mt.load("runs/x").translate(["..."])`.

    Args:
        path: a run directory, or a checkpoint folder in it.
        trust: import the modules of your own that its recipe names.
        options: fields of `mt.decoding.types.EngineOptions`, such as `search={"beams": 8}`.

    Raises:
        ModelError: there is no model, or a damaged one.
    """
    opened = EngineOptions(**options)
    with trust_models(trust):
        return Translator(open_engine(Path(path), opened), opened)
