"""A pool of processes that search, each with a copy of the model and a share of the cores.

The parent reads, splits and writes text and imports no torch; batches of sentences go to whichever
process is free. A process that ends unexpectedly ends the command.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mt.config.plugins import (
    dotted_kinds,
    models_are_trusted,
    named_kinds,
    plugin,
    trust_kinds,
    trust_models,
)
from mt.config.schema import SearchConfig
from mt.decoding.batching import length_batches
from mt.decoding.text_translator import TextTranslator, batch_token_budget
from mt.decoding.types import EngineOptions, Hypothesis, Sentence
from mt.errors import ConfigError, MachineError, MtError
from mt.runtime import signals
from mt.runtime.device import physical_cores

PADDED = 1.125
"""Padded positions of a batch of like lengths for each real one."""
SCORED = 2048
"""Padded positions of a batch that is scored."""

Part = tuple[int, Sequence[str], EngineOptions]
"""A part of a text: its number, its lines and their options."""
Callback = Callable[[Any], None]


def open_pool(kind: str, path: Path, options: EngineOptions) -> TextTranslator:
    """The engine of a model whose search `options.processes` engines of a kind share.

    Raises:
        ConfigError: processes are to share a GPU.
        MtError: what opening the model raises.
        MachineError: a process ended unexpectedly.
    """
    if options.device not in (None, "auto", "cpu"):
        what, advice = "several processes share the cores of a CPU", f"without {options.device}"
        raise ConfigError("PROCESSES", "--processes", what, f"translate {advice}")
    threads = options.threads or max(1, physical_cores() // options.processes)
    own = replace(options, processes=1, threads=threads, device="cpu", prefixes=None)
    searcher = WorkerPoolSearcher(
        [_start_worker(kind, path, own) for _ in range(options.processes)]
    )
    vocabulary, profile = searcher.opened()
    trust_kinds(dotted_kinds(profile.search.model_dump()))  # the processes have imported them
    return TextTranslator(searcher, vocabulary, profile, options)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    callback: Callback | None = None
    """Takes the result of the present task; None: the worker is free."""


class WorkerPoolSearcher:
    """A `Searcher` in several processes."""

    prefetch_windows = 1

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self.workers = workers
        self.queue: deque[tuple[tuple[Any, ...], Callback]] = deque()
        weakref.finalize(self, _stop, workers)

    def opened(self) -> Any:
        """The vocabulary and the profile of the model, once a process has opened it."""
        results: list[Any] = []
        for worker in self.workers:
            worker.callback = results.append
        while not results:
            self._receive()
        return results[0]

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each sentence, in order; work begins at the call."""
        lengths = [len(each.source) for each in sentences]
        # As few batches as fit, for each step of one has its fixed cost, but as many for each
        # process; the next window is dispatched before this one ends.
        budget = max(1, batch_token_budget(config, options))  # 0 of very many beams
        rounds = -(-sum(lengths) // (budget * len(self.workers)))
        share = round(PADDED * sum(lengths) / max(1, rounds * len(self.workers)))
        by_row: dict[int, Any] = {}
        for rows in length_batches(lengths, min(budget, share)):
            task = ("search", [sentences[row] for row in rows], config, options)
            self.queue.append((task, partial(_fill, by_row, rows)))
        self._dispatch()
        return self._in_order(len(sentences), by_row)

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        by_row: dict[int, Any] = {}
        for rows in length_batches([max(map(len, pair)) for pair in pairs], SCORED):
            task = ("force", [pairs[row] for row in rows])
            self.queue.append((task, partial(_fill, by_row, rows)))
        self._dispatch()
        return list(self._in_order(len(pairs), by_row))

    def translate(self, parts: Iterable[Part]) -> Iterator[tuple[int, list[str]]]:
        """The number and the translations of each part of a text, as processes finish them.

        A part depends on itself only, and not on the number of processes.
        """
        remaining, done = iter(parts), deque[tuple[int, list[str]]]()

        def callback(number: int) -> Callback:
            return lambda texts: done.append((number, texts))

        while True:
            # One part for each free process, and one to come.
            free = sum(worker.callback is None for worker in self.workers)
            for number, lines, options in islice(remaining, free + 1 - len(self.queue)):
                self.queue.append((("translate", lines, options), callback(number)))
            self._dispatch()
            if not done:
                if not any(worker.callback for worker in self.workers):
                    return
                self._receive()
            while done:
                yield done.popleft()

    def _in_order(self, count: int, by_row: dict[int, Any]) -> Iterator[Any]:
        """The results of `count` rows, which callbacks fill in."""
        for row in range(count):
            if row % 32 == 0:
                self._receive(0)  # no process waits for the text of this window
            while row not in by_row:
                self._receive()
            yield by_row.pop(row)

    def _dispatch(self) -> None:
        """Send queued tasks to free workers."""
        for worker in self.workers:
            if worker.callback is None and self.queue:
                task, worker.callback = self.queue.popleft()
                try:
                    worker.pipe.send((named_kinds(), *task))
                except OSError:
                    raise _worker_died(worker) from None

    def _receive(self, seconds: float | None = None) -> None:
        """Take the results that have come; by default wait for one."""
        busy = {worker.pipe: worker for worker in self.workers if worker.callback is not None}
        for pipe in wait(list(busy), seconds):
            worker = busy[pipe]  # type: ignore[index] # `wait` returns what it was given
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                raise _worker_died(worker) from None
            if kind == "failed":
                raise value
            if kind == "bug":
                raise RuntimeError(value)
            assert worker.callback is not None, "only a busy worker answers"
            worker.callback(value)
            worker.callback = None
        self._dispatch()


def _fill(by_row: dict[int, Any], rows: Sequence[int], results: Sequence[Any]) -> None:
    by_row.update(zip(rows, results, strict=True))


def _worker_died(worker: _Worker) -> MachineError:
    worker.process.join(5)
    what = f"a process ended unexpectedly (exit code {worker.process.exitcode})"
    advice = "was it killed for want of memory? Try fewer --processes"
    return MachineError("PROCESS-LOST", "--processes", what, advice)


def _start_worker(kind: str, path: Path, options: EngineOptions) -> _Worker:
    # A fresh interpreter: torch and its libraries have threads, which a fork would break.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, kind, path, options, named_kinds(), models_are_trusted())
    process = context.Process(target=_run_worker, args=arguments, daemon=True)
    resource_tracker.ensure_running()  # its first start would undo the next line
    with signals.block_sigint():  # only the parent handles the signal, and ends this
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()


def _run_worker(
    pipe: Connection, kind: str, path: Path, options: EngineOptions,
    named: frozenset[str] = frozenset(), trust: bool = False,
) -> None:  # fmt: skip
    """Open the model, then run tasks until the parent ends; import what the parent may."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked
    try:
        trust_kinds(named)
        with trust_models(trust):
            engine = plugin("engines", kind).open(path, options)
        pipe.send(("opened", (engine.vocabulary, engine.profile)))
        while True:
            named, name, *arguments = pipe.recv()
            trust_kinds(named)
            if name == "translate":
                result = [translation.text for translation in engine.translate(*arguments)]
            else:
                result = list(getattr(engine.searcher, name)(*arguments))
            pipe.send(("done", result))
    except (EOFError, OSError):
        return  # the parent has ended
    except MtError as error:
        pipe.send(("failed", error))
    except Exception:
        pipe.send(("bug", traceback.format_exc()))
