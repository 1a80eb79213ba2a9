"""A lexical shortlist: the target pieces that the pieces of a source may become.

With it a search computes the probabilities of a few hundred target pieces instead of all
(Jean et al. 2015, section 3.2, with the lexicon of IBM Model 1 as in Devlin et al. 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt.data import ibm_model1
from mt.errors import ConfigError, ModelError
from mt.runtime import files, model_files

FORMAT = 1
NAME = "shortlist.safetensors"
"""Its file in a run directory."""
SIZE_MULTIPLE = 256
"""The number of ids of a batch is a multiple of this, so that products come in few sizes."""
LEARN_AGAIN = "learn it again with mt shortlist RUN"


@dataclass(frozen=True)
class Shortlist:
    """The target ids that may be searched for a source."""

    pieces: NDArray[np.int32]
    """[source ids, K] target ids for each source id, filled up with 0; row 0 is the empty word."""
    always: NDArray[np.int32]
    """[A] target ids for any source, ascending."""
    size: int
    """Number of all target ids."""

    def ids(
        self, sources: Iterable[Sequence[int]], prefixes: Iterable[Sequence[int]]
    ) -> NDArray[np.int64]:
        """[V'] the target ids for some sources and prefixes together, ascending and distinct.

        They begin with 0 to FIRST_PIECE - 1, so that these ids are their own places. The lowest
        other ids (the most frequent of a learned vocabulary) fill up the number.
        """
        source_ids = np.unique(np.concatenate([[ibm_model1.EMPTY], *sources]).astype(np.int64))
        chosen = np.zeros(self.size, bool)
        chosen[self.always] = True
        chosen[self.pieces[source_ids]] = True
        for prefix in prefixes:
            chosen[list(prefix)] = True
        missing = -int(chosen.sum()) % SIZE_MULTIPLE
        chosen[np.flatnonzero(~chosen)[:missing]] = True
        return np.flatnonzero(chosen)

    def others(self) -> NDArray[np.int64]:
        """The target ids that are not on the list of every source, ascending."""
        return np.setdiff1d(np.arange(self.size), self.always)


def save_shortlist(shortlist: Shortlist, run: Path, vocabulary_digest: str) -> None:
    """Write it into a run directory, in place of an earlier one."""
    from safetensors.numpy import save as serialise

    metadata = {
        "format": str(FORMAT), "vocabulary": vocabulary_digest, "size": str(shortlist.size),
        "sha256": _digest(shortlist),
    }  # fmt: skip
    tensors = {"pieces": shortlist.pieces, "always": shortlist.always}
    files.write_file(run / NAME, serialise(tensors, metadata=metadata))


def load_shortlist(run: Path, vocabulary_digest: str) -> Shortlist:
    """The shortlist of a run.

    Raises:
        ConfigError: it has none.
        ModelError: it is damaged, or of another vocabulary.
    """
    from safetensors import SafetensorError, safe_open

    path = run / NAME
    if not path.exists():
        advice = f"learn it with mt shortlist {run}, or leave out search.shortlist"
        if run.is_file():
            advice = "translate with the run, or set search.shortlist=false"
        raise ConfigError("SHORTLIST-NONE", "search.shortlist", f"{run} has none", advice)
    model_files.check_file(path, "SHORTLIST-DAMAGED", LEARN_AGAIN)
    try:
        with safe_open(path, "numpy") as stored:
            metadata = dict(stored.metadata())
            tensors = stored.get_tensor("pieces"), stored.get_tensor("always")
        shortlist = Shortlist(*tensors, int(metadata["size"]))
        if int(metadata["format"]) > FORMAT:
            what = f"written in format {metadata['format']}, newer than {FORMAT}"
            raise ModelError("SHORTLIST-NEWER", path, what, "use a newer mt")
        if metadata["sha256"] != _digest(shortlist):
            raise ValueError("it does not have the ids that it was written with")
        _check_ids(shortlist)
        vocabulary = metadata["vocabulary"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        what = f"damaged ({str(error).splitlines()[0]})"
        raise ModelError("SHORTLIST-DAMAGED", path, what, LEARN_AGAIN) from None
    if vocabulary != vocabulary_digest:
        what = f"of vocabulary {vocabulary[:16]}, the run's is {vocabulary_digest[:16]}"
        raise ModelError("VOCAB-MISMATCH", path, what, LEARN_AGAIN)
    return shortlist


def _check_ids(shortlist: Shortlist) -> None:
    """Raise a ValueError when an id is none of the target's."""
    for ids, dimensions in ((shortlist.pieces, 2), (shortlist.always, 1)):
        if ids.ndim != dimensions or ids.dtype.kind != "i":
            raise ValueError("its arrays are of another shape or type")
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < shortlist.size:
            raise ValueError("an id that is not of the vocabulary")


def _digest(shortlist: Shortlist) -> str:
    digest = hashlib.sha256(str(shortlist.size).encode())
    for each in (shortlist.pieces, shortlist.always):
        digest.update(f"{each.shape} {each.dtype}".encode() + each.tobytes())
    return digest.hexdigest()
