"""Several processes that search as one, each with a copy of the model and a share of the cores.

The parent reads, cuts and writes text and imports no torch; what is searched goes to whichever
process is free, batch by batch. A process that ends before it should ends the command.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mt import errors
from mt.config.plugins import plugin
from mt.config.schema import SearchConfig
from mt.decoding.batching import length_batches
from mt.decoding.text_translator import TextTranslator, batch_token_budget
from mt.decoding.types import EngineOptions, Hypothesis, Sentence
from mt.errors import ConfigError, MachineError, MtError
from mt.runtime import signals

PADDED = 1.125
"""Padded positions of a batch of like lengths for each real one."""
SCORED = 2048
"""Padded positions of a batch that is scored."""


def open_pool(kind: str, path: Path, options: EngineOptions, threads: int) -> TextTranslator:
    """The engine of a model, its searching done by `options.processes` processes.

    Args:
        kind: the engine that each process opens.
        path: the model.
        options: what is asked of the engine.
        threads: of each process.

    Raises:
        ConfigError: processes are to share a GPU.
        MtError: what opening the model raises.
        MachineError: a process ended before it should.
    """
    if options.device not in (None, "auto", "cpu"):
        what, advice = "several processes share the cores of a CPU", f"without {options.device}"
        raise ConfigError("PROCESSES", "--processes", what, f"translate {advice}")
    own = replace(options, processes=1, threads=threads, device="cpu", prefixes=None)
    workers = [_start_workers(kind, path, own) for _ in range(options.processes)]
    searcher = WorkerPoolSearcher(workers)
    vocabulary, profile = searcher.opened()
    return TextTranslator(searcher, vocabulary, profile, options)


# ------------------------------------------------------------------------------ the parent


Part = tuple[int, Sequence[str], EngineOptions]
"""A part of a text: its number, its lines and what is asked for."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Callable[[Any], None] | None = None
    """Takes the result of what it does now; None: it is free."""


@dataclass
class _Results:
    """What was asked for by row, filled in as it comes."""

    count: int
    found: dict[int, Any] = field(default_factory=dict)

    def of(self, rows: Sequence[int]) -> Callable[[Any], None]:
        """Takes the results of these rows."""
        return lambda found: self.found.update(zip(rows, found, strict=True))


class WorkerPoolSearcher:
    """Searches in several processes; see `mt.contracts.Searcher`."""

    prefetch_windows = 1

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self.workers = workers
        self.waiting: deque[tuple[tuple[Any, ...], Callable[[Any], None]]] = deque()
        weakref.finalize(self, _stop, workers)

    def opened(self) -> Any:
        """The vocabulary and the profile of the model, once a process has opened it."""
        told: list[Any] = []
        for worker in self.workers:
            worker.task = told.append
        while not told:
            self._receive()
        return told[0]

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each sentence, in order; work begins at the call."""
        lengths = [len(each.source) for each in sentences]
        # As few batches as fit, for each step of one has its fixed cost, but as many for each
        # process; the next window is given out before this one ends.
        budget = max(1, batch_token_budget(config, options))  # 0 of very many beams
        rounds = -(-sum(lengths) // (budget * len(self.workers)))
        share = round(PADDED * sum(lengths) / max(1, rounds * len(self.workers)))
        results = _Results(len(sentences))
        for rows in length_batches(lengths, min(budget, share)):
            task = ("search", [sentences[row] for row in rows], config, options)
            self.waiting.append((task, results.of(rows)))
        self._dispatch()
        return self._in_order(results)

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        results = _Results(len(pairs))
        for rows in length_batches([max(map(len, pair)) for pair in pairs], SCORED):
            self.waiting.append((("force", [pairs[row] for row in rows]), results.of(rows)))
        self._dispatch()
        return list(self._in_order(results))

    def translate(self, parts: Iterable[Part]) -> Iterator[tuple[int, list[str]]]:
        """The translations of parts of a text, each the work of one process, as they are done.

        What a part becomes depends on itself only, and not on how many processes there are.

        Yields:
            The number of a part, and its translations.
        """
        coming, done = iter(parts), deque[tuple[int, list[str]]]()

        def keep(number: int) -> Callable[[Any], None]:
            return lambda texts: done.append((number, texts))

        while True:
            for number, lines, options in islice(coming, self._idle()):
                self.waiting.append((("translate", lines, options), keep(number)))
            self._dispatch()
            if not done:
                if not any(worker.task for worker in self.workers):
                    return
                self._receive()
            while done:
                yield done.popleft()

    def _idle(self) -> int:
        """How many parts to read, so that there is one for each free process and one to come."""
        return sum(worker.task is None for worker in self.workers) + 1 - len(self.waiting)

    def _in_order(self, results: _Results) -> Iterator[Any]:
        for row in range(results.count):
            if row % 32 == 0:
                self._receive(0)  # nobody should wait for the text of this window
            while row not in results.found:
                self._receive()
            yield results.found.pop(row)

    def _dispatch(self) -> None:
        """Give what waits to those that are free."""
        for worker in self.workers:
            if worker.task is None and self.waiting:
                task, worker.task = self.waiting.popleft()
                try:
                    worker.pipe.send(task)
                except OSError:
                    raise _worker_died(worker) from None

    def _receive(self, seconds: float | None = None) -> None:
        """Take the results that have come; by default wait for one."""
        busy = {worker.pipe: worker for worker in self.workers if worker.task is not None}
        for pipe in wait(list(busy), seconds):
            worker = busy[pipe]  # type: ignore[index] # what was given comes back
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                raise _worker_died(worker) from None
            if kind == "failed":
                raise value.error()
            if kind == "bug":
                raise RuntimeError(value)
            assert worker.task is not None, "only who has a task answers"
            worker.task(value)
            worker.task = None
        self._dispatch()


def _worker_died(worker: _Worker) -> MachineError:
    worker.process.join(5)
    what = f"a process ended unexpectedly (exit code {worker.process.exitcode})"
    advice = "was it killed for want of memory? Try fewer --processes"
    return MachineError("PROCESS-LOST", "--processes", what, advice)


def _start_workers(kind: str, path: Path, options: EngineOptions) -> _Worker:
    # A fresh interpreter: what has threads, as torch and its libraries do, must not be forked.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_worker, args=(theirs, kind, path, options), daemon=True)
    resource_tracker.ensure_running()  # its first start would undo what follows
    with signals.block_sigint():  # the parent is told, and ends this
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()


# ------------------------------------------------------------------------------ a process


@dataclass(frozen=True)
class _Failure:
    """An MtError on its way to the parent."""

    kind: str
    code: str
    problems: list[tuple[str, str]]
    advice: str

    def error(self) -> MtError:
        (where, what), *others = self.problems
        known: type[MtError] = getattr(errors, self.kind)
        return known(self.code, where, what, self.advice, others)


def _result(engine: TextTranslator, name: str, arguments: Sequence[Any]) -> list[Any]:
    if name == "translate":
        return [translation.text for translation in engine.translate(*arguments)]
    return list(getattr(engine.searcher, name)(*arguments))


def _run_worker(pipe: Connection, kind: str, path: Path, options: EngineOptions) -> None:
    """Open the model, then do what comes until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be held back
    try:
        engine = plugin("engines", kind).open(path, options)
        pipe.send(("opened", (engine.vocabulary, engine.profile)))
        while True:
            name, *arguments = pipe.recv()
            pipe.send(("done", _result(engine, name, arguments)))
    except (EOFError, OSError):
        return  # the parent has gone
    except MtError as error:
        failure = _Failure(type(error).__name__, error.code, error.problems, error.advice)
        pipe.send(("failed", failure))
    except Exception:
        pipe.send(("bug", traceback.format_exc()))
