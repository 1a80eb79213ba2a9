"""An encoded corpus: flat arrays on disk that training memory-maps.

`NAME.source.tokens` has the ids of all sources end to end, each ending in `</s>`;
`NAME.source.offsets` where each begins, and where the last one ends; the same for the target.
`NAME.json` is the header, with the sizes and hashes of the four.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mt.errors import ModelError
from mt.runtime import files, model_files
from mt.vocabulary.subword_sampling import ranges

FORMAT = 1
SIDES = ("source", "target")
_VERIFIED_BYTES = 64 << 20
_ADVICE = "run `mt prepare` again, which rebuilds what is damaged"


class EncodedPairs:
    """Sentence pairs as ids in flat arrays: tokens end to end, and offsets [pairs + 1]."""

    def __init__(
        self, source_tokens: NDArray[np.unsignedinteger], source_offsets: NDArray[np.int64],
        target_tokens: NDArray[np.unsignedinteger], target_offsets: NDArray[np.int64],
    ) -> None:  # fmt: skip
        self._source_tokens, self._source_offsets = source_tokens, source_offsets
        self._target_tokens, self._target_offsets = target_tokens, target_offsets

    def __len__(self) -> int:
        return len(self._source_offsets) - 1

    def source(self, row: int) -> NDArray[np.unsignedinteger]:
        """Return the source ids [S] of a pair, ending in `</s>`."""
        return self._source_tokens[self._source_offsets[row] : self._source_offsets[row + 1]]

    def target(self, row: int) -> NDArray[np.unsignedinteger]:
        """Return the target ids [T] of a pair, without `<s>`, ending in `</s>`."""
        return self._target_tokens[self._target_offsets[row] : self._target_offsets[row + 1]]

    def arrays(self, side: str) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """Return the tokens and the offsets of a side."""
        if side == "source":
            return self._source_tokens, self._source_offsets
        return self._target_tokens, self._target_offsets

    @cached_property
    def source_lengths(self) -> NDArray[np.int32]:
        """[pairs] source ids of each pair, `</s>` included."""
        return np.diff(self._source_offsets).astype(np.int32)

    @cached_property
    def target_lengths(self) -> NDArray[np.int32]:
        """[pairs] target ids of each pair, `</s>` included."""
        return np.diff(self._target_offsets).astype(np.int32)


def select_pairs(pairs: EncodedPairs, rows: NDArray[np.int64]) -> EncodedPairs:
    """Return copies of the pairs `rows`, in their order."""
    arrays = list[Any]()
    for side in SIDES:
        tokens, offsets = pairs.arrays(side)
        lengths = offsets[rows + 1] - offsets[rows]
        places = ranges(offsets[rows], lengths)
        arrays += [tokens[places], np.append(0, np.cumsum(lengths))]
    return EncodedPairs(*arrays)


def join_pairs(parts: Sequence[EncodedPairs]) -> EncodedPairs:
    """Return the pairs of all parts, one part after the other."""
    arrays = list[Any]()
    for side in SIDES:
        each = [part.arrays(side) for part in parts]
        lengths = np.concatenate([np.diff(offsets) for _, offsets in each])
        tokens = np.concatenate([tokens[offsets[0] : offsets[-1]] for tokens, offsets in each])
        arrays += [tokens, np.append(0, np.cumsum(lengths))]
    return EncodedPairs(*arrays)


class Corpus(EncodedPairs):
    """Encoded pairs memory-mapped from the files of a folder, by name and header."""

    def __init__(self, folder: Path, name: str, header: dict[str, Any]) -> None:
        self.folder, self.name, self.header = folder, name, header
        self.digest: str = header["digest"]
        super().__init__(*self._map("source"), *self._map("target"))

    @classmethod
    def open(cls, folder: Path, name: str) -> Corpus:
        """Open the corpus `train` or `valid`; verify its sizes, and the hashes of small files.

        Raises:
            ModelError: missing or damaged.
        """
        where = folder / f"{name}.json"
        try:
            header = model_files.read_json(where, code="CORPUS-DAMAGED", advice=_ADVICE)
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}, not {FORMAT}")
            if header["digest"] != _digest(header):
                raise ValueError("its digest is another")
            for file, facts in header["files"].items():
                _verify_file(folder / file, facts["bytes"], facts["sha256"])
            return cls(folder, name, header)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelError("CORPUS-DAMAGED", where, f"damaged ({error})", _ADVICE) from None

    def _map(self, side: str) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        header, stem = self.header, f"{self.folder / self.name}.{side}"
        tokens = _memory_map(Path(f"{stem}.tokens"), header["dtype"], header["tokens"][side])
        return tokens, _memory_map(Path(f"{stem}.offsets"), "int64", header["pairs"] + 1)


def _verify_file(path: Path, size: int, sha256: str) -> None:
    actual = path.stat().st_size
    if actual != size:
        raise ValueError(f"{path.name} has {actual} bytes, not {size}")
    # Hashing a large corpus would delay every start by seconds; a torn one has another size.
    if size <= _VERIFIED_BYTES and files.sha256(path) != sha256:
        raise ValueError(f"{path.name} has another sha256")


def _memory_map(path: Path, dtype: str, count: int) -> NDArray[Any]:
    if count == 0:
        return np.empty(0, dtype)  # an empty file cannot be mapped
    mapped = np.memmap(path, dtype=dtype, mode="r", shape=(count,))
    return np.asarray(mapped)  # still the file's pages, without memmap's cost at each slice


# ------------------------------------------------------------------------------- writing


def token_type(vocabulary_size: int) -> str:
    """Return the numpy type of stored ids."""
    return "uint16" if vocabulary_size <= 1 << 16 else "uint32"


class Writer:
    """Writes a corpus in constant memory, chunk by chunk; a context manager."""

    def __init__(self, folder: Path, name: str, dtype: str, vocabulary_digest: str) -> None:
        self.folder, self.name, self.dtype = folder, name, dtype
        self.vocabulary_digest = vocabulary_digest
        self.pairs = 0
        self.tokens = dict.fromkeys(SIDES, 0)

    def __enter__(self) -> Writer:
        self._streams: dict[str, BinaryIO] = {}
        self._hashes = {}
        self._bytes: dict[str, int] = {}
        for side in SIDES:
            for part in ("tokens", "offsets"):
                name = f"{self.name}.{side}.{part}"
                self._streams[name] = files.open_new(self.folder / name)
                self._hashes[name], self._bytes[name] = hashlib.sha256(), 0
            self._write(f"{self.name}.{side}.offsets", np.zeros(1, np.int64).tobytes())
        return self

    def append(self, side_tokens: dict[str, bytes], side_lengths: dict[str, bytes]) -> None:
        """Append pairs: for each side its ids end to end, as `dtype`, and its lengths, as int32."""
        counts = set()
        for side in SIDES:
            lengths = np.frombuffer(side_lengths[side], np.int32)
            ends = self.tokens[side] + np.cumsum(lengths, dtype=np.int64)
            tokens = side_tokens[side]
            self._write(f"{self.name}.{side}.tokens", tokens)
            self._write(f"{self.name}.{side}.offsets", ends.tobytes())
            self.tokens[side] += len(tokens) // np.dtype(self.dtype).itemsize
            counts.add(len(lengths))
            assert not len(ends) or ends[-1] == self.tokens[side], "lengths do not add up"
        assert len(counts) == 1, "the sides have different numbers of sentences"
        self.pairs += counts.pop()

    def _write(self, name: str, data: bytes) -> None:
        self._streams[name].write(data)
        self._hashes[name].update(data)
        self._bytes[name] += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for stream in self._streams.values():
            stream.close()
        if kind is None:
            files.write_json(self.folder / f"{self.name}.json", self._header())

    def _header(self) -> dict[str, Any]:
        written = {
            name: {"bytes": self._bytes[name], "sha256": self._hashes[name].hexdigest()}
            for name in self._streams
        }
        header: dict[str, Any] = {
            "format": FORMAT, "pairs": self.pairs, "dtype": self.dtype, "tokens": self.tokens,
            "vocabulary": self.vocabulary_digest, "files": written,
        }  # fmt: skip
        return header | {"digest": _digest(header)}


def _digest(header: dict[str, Any]) -> str:
    """Hash a header; of the files only their contents: their names do not matter."""
    facts = {key: value for key, value in header.items() if key != "digest"}
    facts["files"] = [file["sha256"] for file in header["files"].values()]
    return files.digest_json(facts)
