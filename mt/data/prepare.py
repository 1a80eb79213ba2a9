"""Prepare the corpora of a recipe once: the results are cached under the hash of their inputs.

Memory does not grow with the corpus. Only the beginning of streamed corpora is read, to learn a
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

from mt.config.recipe import Recipe
from mt.data import cache
from mt.data.build import CorpusBuilder, format_report
from mt.data.cache import PreparedData
from mt.errors import MachineError, ModelError
from mt.runtime import files
from mt.runtime.console import print_line
from mt.runtime.lock import lock
from mt.runtime.signals import raise_on_stop_signals
from mt.vocabulary.vocabulary import Vocabulary


def prepare(
    recipe: Recipe, log: Callable[[str], None] = print_line, inherited: Vocabulary | None = None
) -> PreparedData:
    """Open the vocabulary and the encoded corpora of a recipe; build them if not in the cache.

    Of several processes one builds and the others wait. `inherited` is the vocabulary when that
    of another model is used.

    Raises:
        DataError: the data are missing, damaged or empty, or changed while they were read.
        ConfigError, ModelError: the vocabulary cannot be learned or is none.
        DownloadError: a hub data set could not be fetched.
        MachineError: the cache cannot be written, and the data are not in it.
        Stopped: a signal came; nothing half-made is left.
    """
    sources = cache.corpus_sources(recipe)
    folder = files.cache_folder() / "corpora" / cache.cache_key(recipe, sources, inherited)
    try:
        files.make_cache_folder("corpora")
    except MachineError:
        if not folder.exists():  # what is prepared can be read all the same
            raise
        return cache.open_prepared(folder, sources, log)
    with (
        raise_on_stop_signals("preparing the data"),
        lock(cache.lock_path(folder), wait=True),
    ):
        cache.sweep_cache(folder)
        if folder.exists():
            try:
                return cache.open_prepared(folder, sources, log)
            except ModelError as error:
                where, reason = error.problems[0]
                log(f"warning: {where}: {reason}; it is built again")
                files.delete(folder)
        with files.staged_folder(folder) as hidden:
            report = CorpusBuilder(recipe, sources, hidden, log, inherited).run()
        for line in format_report(report):
            log(line)
        return cache.open_prepared(folder, sources, lambda _: None)
