"""Sources to vocabulary to encoded corpus, once: kept in a cache under the hash of what went in.

Reading and encoding are done by `datasets` in chunks of about a thousand pairs; a chunk comes
back as one row of bytes, which is appended to flat files. Memory does not grow with the corpus.
Of corpora that training will stream only the beginning is read, to learn a vocabulary from.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from mt.config.recipe import Recipe
from mt.data.build import CorpusBuilder, format_report
from mt.data.cache import (
    PreparedData,
    cache_key,
    corpus_sources,
    lock_path,
    open_prepared,
    sweep_cache,
)
from mt.errors import ModelError, Stopped
from mt.runtime import files
from mt.runtime.console import print_line
from mt.vocabulary.vocabulary import Vocabulary


def prepare(
    recipe: Recipe, log: Callable[[str], None] = print_line, known: Vocabulary | None = None
) -> PreparedData:
    """The vocabulary and the encoded corpora of a recipe, from the cache when they are there.

    May be called by several processes at once; one builds, the others wait.

    Args:
        recipe: what to prepare for.
        log: receives each line of progress.
        known: the vocabulary to encode with, when another model's is used.

    Raises:
        DataError: the data are missing, damaged or empty, or changed while they were read.
        ConfigError, ModelError: the vocabulary cannot be learned or is none.
        DownloadError: a hub data set could not be fetched.
        Stopped: a signal asked to stop; nothing half-made is left.
    """
    sources = corpus_sources(recipe)
    folder = files.cache_folder() / "corpora" / cache_key(recipe, sources, known)
    with files.lock(lock_path(folder), wait=True), _raise_on_signals():
        sweep_cache(folder)
        if folder.exists():
            try:
                return open_prepared(folder, sources, log)
            except ModelError as error:
                (where, what), *_ = error.problems
                log(f"warning: {where}: {what}; it is built again")
                files.delete(folder)
        with files.staged_folder(folder) as hidden:
            report = CorpusBuilder(recipe, sources, hidden, log, known).run()
        for line in format_report(report):
            log(line)
        return open_prepared(folder, sources, lambda _: None)


@contextlib.contextmanager
def _raise_on_signals() -> Iterator[None]:
    """Turns SIGINT and SIGTERM to an exception, so that everything is cleaned up."""
    owner = os.getpid()
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            asked.append(number)
            raise Stopped(number, "stopped while preparing the data; nothing was kept of it")
        if number == signal.SIGTERM:  # a worker inherits this; its parent ends it
            os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
        if asked:  # it came inside a destructor, whose exceptions Python drops
            raise Stopped(asked[0], "stopped while preparing the data; what was prepared is kept")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
