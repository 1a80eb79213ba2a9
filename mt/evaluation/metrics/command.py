"""Any program that scores lines: a learned metric in an environment of its own, such as COMET.

The program is started for each text, without a shell, and speaks JSON lines over pipes:

1. it writes `{"version": "..."}`, once it is ready;
2. it reads `{"source": "...", "hypothesis": "...", "references": ["..."]}` a line, and an empty
   line after each batch;
3. it writes one number for each of these, in their order, at the latest after the empty line;
4. it ends with exit code 0 when its standard input ends.

What it writes to standard error is shown when it fails. `scripts/metrics/` has two such programs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import re
import shutil
import signal
import statistics
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, ClassVar, Literal, cast

from pydantic import Field

from mt.config.plugins import check_program
from mt.config.schema import METRIC_NAME, MetricConfig
from mt.errors import ConfigError, MachineError, printable
from mt.evaluation.scoring import CorpusScore, Metric
from mt.runtime import console

MOST_LINES = 10_000
"""Of a batch, and of answers that wait to be read."""
LONGEST = 1 << 16
"""Bytes of an answer or of a line of standard error."""
SHOWN = 20
"""Last lines of standard error that are shown."""
_OWN_PYTHON = re.compile(r"PYTHON(PATH|HOME|STARTUP)|VIRTUAL_ENV")
"""Variables that would lead a program in Python to the packages of mt."""


class Config(MetricConfig):
    """Which program, and how long it may take."""

    kind: Literal["command"] = "command"
    name: str = Field(pattern=METRIC_NAME)
    """Its name in results, in `training.monitor` and for `--fail-below`."""
    run: tuple[str, ...] = Field(min_length=1, strict=False)
    """The program and its arguments. Relative paths begin at the working directory."""
    better: Literal["higher", "lower"] = "higher"
    """Which of two scores is the better one."""
    batch: int = Field(256, ge=1, le=MOST_LINES)
    """Lines of a batch."""
    timeout: float = Field(600.0, gt=0, le=1e6)
    """Seconds that it has to start, and for each batch."""

    needs_sources: ClassVar[bool] = True

    @property
    def higher_is_better(self) -> bool:
        """As `better` says."""
        return self.better == "higher"


def build(config: Config, target_language: str) -> CommandMetric:
    """Return the metric; nothing is started yet.

    Raises:
        ConfigError: there is no such program.
        ModelError: the user has not named the program.
    """
    check_program(config.run, f"evaluation.metrics: {config.name}")
    if shutil.which(config.run[0]) is None:
        what = f"there is no program {config.run[0]}"
        advice = "give the path of a program that may be executed as the first entry of run"
        raise ConfigError("METRIC-COMMAND", config.name, what, advice)
    return CommandMetric(config)


@dataclass(frozen=True)
class CommandMetric(Metric):
    """The mean of what a program says of each line."""

    config: Config

    def score(
        self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> CorpusScore:
        """Start the program, and score all lines.

        Raises:
            MachineError: it fails, is too slow, or does not answer a finite number a line.
        """
        rows = zip(sources, hypotheses, zip(*references, strict=True), strict=True)
        lines = [
            json.dumps({"source": source, "hypothesis": hypothesis, "references": others})
            for source, hypothesis, others in rows
        ]
        size, segments = self.config.batch, list[float]()
        with _Program(self.config) as program:
            version = program.read_version()
            for start in range(0, len(lines), size):
                segments += program.score_batch(lines[start : start + size], start)
            program.finish()
        signature = f"nrefs:{len(references)}|mean:lines|version:{version}"
        return CorpusScore(statistics.fmean(segments), signature, segments)


class _Program:
    """A running program; at the end of the `with` block it and its children are killed."""

    def __init__(self, config: Config) -> None:
        self.config, self.expired = config, False
        self.answers: queue.Queue[bytes] = queue.Queue(MOST_LINES + 1)
        self.errors: deque[bytes] = deque(maxlen=SHOWN)
        environment = {k: v for k, v in os.environ.items() if not _OWN_PYTHON.fullmatch(k)}
        try:
            self.process = subprocess.Popen(
                config.run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise self._failure(f"it cannot be started: {error}") from None
        self.input, *outputs = (
            cast(IO[bytes], stream)
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr)
        )
        self.readers = [
            threading.Thread(target=_read_lines, args=(stream, keep), daemon=True)
            for stream, keep in zip(outputs, (self.answers.put, self.errors.append), strict=True)
        ]
        for reader in self.readers:
            reader.start()

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # it has not read everything
            self.input.close()

    def read_version(self) -> str:
        """Return the version that the program gives when it is ready."""
        with self._limit():
            answer = self._answer("its version")
        try:
            version = json.loads(answer)["version"]
        except (ValueError, TypeError, KeyError, RecursionError):
            version = None
        if not isinstance(version, str):
            raise self._failure(f"its first line is no version: {_shown(answer)}")
        return re.sub(r"[|\s]", "_", printable(version, 100))

    def score_batch(self, lines: Sequence[str], start: int) -> list[float]:
        """Return the number of each line; `start` is the number of lines before these."""
        with self._limit():
            with contextlib.suppress(OSError, ValueError):  # it has ended, as the answers show
                self.input.write("\n".join([*lines, "", ""]).encode())
                self.input.flush()
            return [
                self._number(self._answer(f"line {number}"), number)
                for number in range(start + 1, start + len(lines) + 1)
            ]

    def finish(self) -> None:
        """Let the program end, and check that it has nothing more to say."""
        with self._limit():
            with contextlib.suppress(OSError, ValueError):
                self.input.close()
            if self._next_answer():
                raise self._failure("it answers more numbers than there are lines")
            code = self.process.wait()
        if self.expired:
            raise self._failure(self._too_late("end"))
        if code:
            raise self._failure(f"it ended with exit code {code}")

    def _number(self, answer: bytes, number: int) -> float:
        try:
            value = json.loads(answer)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                value = float(value)
                if math.isfinite(value):
                    return value
        except (ValueError, RecursionError, OverflowError):
            pass
        raise self._failure(f"its answer to line {number} is no finite number: {_shown(answer)}")

    def _answer(self, what: str) -> bytes:
        """Return the next line of the program.

        Raises:
            MachineError: it ends first, or takes too long.
        """
        answer = self._next_answer()
        if answer:
            return answer
        if self.expired:
            raise self._failure(self._too_late(f"answer {what}"))
        try:
            code = self.process.wait(1)
        except subprocess.TimeoutExpired:  # it has only closed its output
            self._kill()
            code = self.process.wait()
        raise self._failure(f"it ended before {what}, with exit code {code}")

    def _next_answer(self) -> bytes:
        """Return the next line of the program; empty at the end."""
        try:
            return self.answers.get(timeout=self.config.timeout + 5)
        except queue.Empty:  # what it started holds its output open, in another group
            self.expired = True
            return b""

    def _too_late(self, what: str) -> str:
        return f"it did not {what} within {self.config.timeout:g} seconds (timeout)"

    @contextlib.contextmanager
    def _limit(self) -> Iterator[None]:
        """Kill the program unless the block ends in time."""
        timer = threading.Timer(self.config.timeout, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        self._kill()

    def _kill(self) -> None:
        """Kill the program and what it started, its process group, unless it has ended."""
        if self.process.returncode is not None:  # its number may be another's by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:  # Windows
                self.process.kill()

    def _failure(self, what: str) -> MachineError:
        """Show what the program wrote to standard error; return the error to raise."""
        if hasattr(self, "process"):
            self._kill()
            self.readers[1].join(1)
        for line in filter(None, self.errors):
            console.print_line(f"{self.config.name}: {line.decode(errors='replace').rstrip()}")
        advice = f"try it by itself: {' '.join(self.config.run)}"
        return MachineError("METRIC-COMMAND", self.config.name, what, advice)


def _read_lines(stream: IO[bytes], keep: Callable[[bytes], object]) -> None:
    """Hand on each line of a stream, and an empty one at its end."""
    with stream:
        while line := stream.readline(LONGEST):
            keep(line)
    keep(b"")


def _shown(answer: bytes) -> str:
    return repr(printable(answer.decode(errors="replace").strip(), 80))
