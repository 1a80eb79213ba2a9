"""The vocabulary: text to ids and back, learned with SentencePiece or given.

Ids 0 to 3 are pad, unk, begin and end, 4 to 67 are control pieces that no text can become,
and from 68 on stand the pieces of text: with byte fallback the 256 bytes first, so that no
character is unknown. The source is normalised (NFKC, white space folded); the target is left
as it is and comes back from its ids unchanged. (White space within a line U+2581 apart.)
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from mt.errors import ConfigError, ModelError
from mt.runtime import files
from mt.special_tokens import BEGIN, END, FIRST_PIECE, FIRST_RESERVED, N_RESERVED, PAD, UNK

FORMAT = 1
_NAMED = ("<mask>", "<bt>")


def normalize_source(line: str) -> str:
    """The source side of a line: NFKC, each run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", line).split())


def language_tag(language: str) -> str:
    """The name of the control piece that stands for a language, such as `<2de>`."""
    return f"<2{language}>"


# ----------------------------------------------------------------------------- one side


class Tokenizer(Protocol):
    """Cuts text of one side into pieces with ids."""

    suffix: str
    content: bytes
    size: int
    longest: int | None
    """Characters of the longest piece; None when there is no such bound."""

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids, which are of unk and of pieces only."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The string of each id that is no control piece."""


class SentencePieceTokenizer:
    """A SentencePiece model; a foreign one has its ids moved up by FIRST_PIECE."""

    suffix = ".model"

    def __init__(self, content: bytes, where: str) -> None:
        import sentencepiece

        self.content, self.where = content, where
        try:
            # Checked here because an empty model loads, and fails at the first line.
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=content or b"?")
            own = self._is_ours()
        except Exception as error:
            what = f"not a SentencePiece model ({_first_line(error)})"
            raise ModelError("VOCAB-DAMAGED", where, what, _AGAIN) from None
        self.unknown = self.processor.unk_id()
        self.offset = 0 if own else FIRST_PIECE
        self.size = self.processor.get_piece_size() + self.offset
        names = self.processor.id_to_piece(list(range(self.processor.get_piece_size())))
        self.longest: int | None = max(len(name) for name in names)

    def _is_ours(self) -> bool:
        p = self.processor
        special = (p.pad_id(), p.unk_id(), p.bos_id(), p.eos_id()) == (PAD, UNK, BEGIN, END)
        reserved = range(FIRST_RESERVED, FIRST_PIECE)
        return special and p.get_piece_size() > FIRST_PIECE and all(map(p.is_control, reserved))

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self.content, self.where)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""
        found: list[list[int]] = self.processor.encode(list(lines), out_type=int, num_threads=1)
        if not self.offset:
            return found
        unknown, offset = self.unknown, self.offset
        return [[UNK if i == unknown else i + offset for i in ids] for ids in found]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        own = [[self.unknown if i == UNK else i - self.offset for i in line] for line in ids]
        # Of no lines at all it makes one, "".
        found: list[str] = self.processor.decode(own, num_threads=1) if own else []
        return found

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The string of each id."""
        found: list[str] = self.processor.id_to_piece(
            [self.unknown if i == UNK else i - self.offset for i in ids]
        )
        return found


class WhitespaceTokenizer:
    """A list of words; what stands between spaces is one piece."""

    suffix = ".txt"
    longest: int | None = None

    def __init__(self, content: bytes, where: str) -> None:
        self.content, self.where = content, where
        try:
            self.words = content.decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise ModelError("VOCAB-DAMAGED", where, "not UTF-8 text", _AGAIN) from None
        self.ids = {word: i for i, word in enumerate(self.words, start=FIRST_PIECE)}
        self.size = FIRST_PIECE + len(self.words)

    def __reduce__(self) -> tuple[Any, ...]:
        return WhitespaceTokenizer, (self.content, self.where)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""
        known = self.ids
        return [[known.get(word, UNK) for word in _split_words(line)] for line in lines]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        return [" ".join(self.pieces(line)) for line in ids]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The string of each id."""
        return ["<unk>" if i == UNK else self.words[i - FIRST_PIECE] for i in ids]


def _split_words(line: str) -> Iterator[str]:
    """What stands between spaces and tabs; other white space may be part of a given piece."""
    return (word for word in line.replace("\t", " ").split(" ") if word)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_AGAIN = "prepare again, or give vocabulary.path a good one"
_TOKENIZERS: dict[str, type[SentencePieceTokenizer] | type[WhitespaceTokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "whitespace": WhitespaceTokenizer,
}


# --------------------------------------------------------------------------- both sides


class Vocabulary:
    """Text to ids and back for both sides of a translation direction.

    Args:
        kind: `sentencepiece` or `whitespace`.
        source, target: what cuts each side, the same object when the vocabulary is joint.
        controls: names of the control pieces that are in use, and their ids.
    """

    def __init__(
        self, kind: str, source: Tokenizer, target: Tokenizer, controls: dict[str, int]
    ) -> None:
        self.kind, self.source, self.target, self.controls = kind, source, target, controls
        parts = [hashlib.sha256(side.content).hexdigest() for side in (source, target)]
        key = json.dumps([FORMAT, kind, self.joint, controls, parts], sort_keys=True)
        self.digest = hashlib.sha256(key.encode()).hexdigest()

    @property
    def joint(self) -> bool:
        """Whether both sides share their ids."""
        return self.source is self.target

    @property
    def source_size(self) -> int:
        """Number of source ids."""
        return self.source.size

    @property
    def target_size(self) -> int:
        """Number of target ids."""
        return self.target.size

    @property
    def size(self) -> int:
        """Number of ids of the larger side; of both when joint."""
        return max(self.source_size, self.target_size)

    def normalise_source(self, lines: Iterable[str]) -> list[str]:
        """What is cut of source lines: folded, but left alone where pieces were cut elsewhere."""
        return (
            list(lines) if self.kind == "whitespace" else [normalize_source(line) for line in lines]
        )

    def encode_source(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of source lines, normalised first, without `<s>` and `</s>`."""
        return self.source.encode(self.normalise_source(lines))

    def encode_target(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of target lines as they are, without `<s>` and `</s>`."""
        return self.target.encode(lines)

    def decode_target(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of target ids up to their end; control pieces are left out."""
        return self.target.decode([_strip_control_ids(line, self.target_size) for line in ids])

    def pieces_source(self, ids: Sequence[int]) -> list[str]:
        """The string of each source id."""
        return [self._source_pieces[i] for i in ids]

    def pieces_target(self, ids: Sequence[int]) -> list[str]:
        """The string of each target id."""
        return [self._target_pieces[i] for i in ids]

    @cached_property
    def _source_pieces(self) -> list[str]:
        return self._pieces(self.source)

    @cached_property
    def _target_pieces(self) -> list[str]:
        return self._source_pieces if self.joint else self._pieces(self.target)

    def _pieces(self, side: Tokenizer) -> list[str]:
        """The string of every id of a side: each line asks for some."""
        special = {PAD: "<pad>", UNK: "<unk>", BEGIN: "<s>", END: "</s>"}
        special |= {i: f"<reserved_{i - FIRST_RESERVED}>" for i in range(4, FIRST_PIECE)}
        special |= {i: name for name, i in self.controls.items()}
        return [special[i] for i in range(FIRST_PIECE)] + side.pieces(range(FIRST_PIECE, side.size))

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have a control piece: a source says in which it is to be written."""
        return tuple(name[2:-1] for name in self.controls if name.startswith("<2"))

    def front(self, language: str) -> tuple[int, ...]:
        """What stands before a source to be written in a language; nothing if none is named."""
        return (self.controls[language_tag(language)],) if self.languages else ()

    def naming(self, names: Iterable[str]) -> Vocabulary:
        """The same vocabulary, in which these control pieces have a name and an id.

        Raises:
            ConfigError: there are not so many reserved pieces.
        """
        controls = dict(self.controls)
        for name in names:
            controls.setdefault(name, max(controls.values(), default=FIRST_RESERVED - 1) + 1)
        if max(controls.values(), default=0) >= FIRST_PIECE:
            what = f"{len(controls)} control pieces, and only {N_RESERVED} are reserved"
            raise ConfigError("VOCAB-FULL", "vocabulary", what, "train on fewer languages")
        if controls == self.controls:
            return self
        return Vocabulary(self.kind, self.source, self.target, controls)

    def save(self, folder: Path) -> None:
        """Write it into a folder, `vocabulary.json` last."""
        for name, content in self.parts().items():
            files.write_file(folder / name, content)

    def parts(self) -> dict[str, bytes]:
        """Its files, `vocabulary.json` last."""
        named = {"": self.source} if self.joint else _sides(self.source, self.target)
        told = {
            f"vocabulary{side}{cutter.suffix}": cutter.content for side, cutter in named.items()
        }
        header = {
            "format": FORMAT, "kind": self.kind, "joint": self.joint,
            "source_size": self.source_size, "target_size": self.target_size,
            "controls": self.controls, "digest": self.digest,
            "files": {n: hashlib.sha256(content).hexdigest() for n, content in told.items()},
        }  # fmt: skip
        return {**told, "vocabulary.json": files.as_json(header).encode()}

    @classmethod
    def load(cls, folder: Path | zipfile.Path) -> Vocabulary:
        """The vocabulary in a folder, or in an archive.

        Raises:
            ModelError: missing, damaged, of a newer format, or not what it was when saved.
        """
        where = folder / "vocabulary.json"
        try:
            header = files.read_json(where)
            if header["format"] > FORMAT:
                what = f"written in format {header['format']}, newer than {FORMAT}"
                raise ModelError("VOCAB-NEWER", where, what, "use a newer mt")
            loaded = cls._loaded(folder, header)
        except FileNotFoundError as error:
            name = Path(error.filename).name
            raise ModelError("VOCAB-NONE", folder, f"{name} is missing", _AGAIN) from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            what = f"damaged ({_first_line(error)})"
            raise ModelError("VOCAB-DAMAGED", where, what, _AGAIN) from None
        if loaded.digest != header["digest"]:
            what = f"its digest is {loaded.digest[:16]}, not {str(header['digest'])[:16]}"
            raise ModelError("VOCAB-DAMAGED", where, what, _AGAIN)
        return loaded

    @classmethod
    def _loaded(cls, folder: Path | zipfile.Path, header: dict[str, Any]) -> Vocabulary:
        cut = _TOKENIZERS[header["kind"]]
        sides = []
        for side in [""] if header["joint"] else [".source", ".target"]:
            path = folder / f"vocabulary{side}{cut.suffix}"
            content = path.read_bytes()
            found, kept = hashlib.sha256(content).hexdigest(), header["files"][path.name]
            if found != kept:
                what = f"its sha256 is {found[:16]}, not {kept[:16]}"
                raise ModelError("VOCAB-DAMAGED", path, what, _AGAIN)
            sides.append(cut(content, str(path)))
        return cls(header["kind"], sides[0], sides[-1], header["controls"])


def _sides(source: Tokenizer, target: Tokenizer) -> dict[str, Tokenizer]:
    return {".source": source, ".target": target}


def _strip_control_ids(ids: Sequence[int], size: int) -> list[int]:
    found = []
    for i in map(int, ids):
        if i == END:
            break
        if i == UNK or FIRST_PIECE <= i < size:
            found.append(i)
    return found
