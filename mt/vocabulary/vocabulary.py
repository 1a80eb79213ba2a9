"""The vocabulary: text to ids and back, by a SentencePiece model or a list of words.

Ids 0 to 3 are pad, unk, begin and end. Ids 4 to 67 are control pieces that no text can become. The
pieces of text begin at 68: with byte fallback the 256 bytes first, so that no character is unknown.
The source is normalised (`mt.vocabulary.normalization`). The target is not, and comes back from
its ids unchanged, but for U+2581.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from mt.errors import ConfigError, ModelError
from mt.runtime import files, model_files
from mt.runtime.model_files import MAX_VOCABULARY, JsonObject
from mt.special_tokens import BEGIN, END, FIRST_PIECE, FIRST_RESERVED, N_RESERVED, PAD, UNK
from mt.vocabulary import trial
from mt.vocabulary.normalization import drop_invisible, fold_spaces, normalize_source

FORMAT = 2
"""1: invisible characters of the source are kept. Models of format 1 stay with it."""
SPACE = "\u2581"
"""SentencePiece's mark of a space in a piece."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A piece that is a byte."""
NAMED_CONTROLS = ("<mask>", "<bt>")


def language_tag(language: str) -> str:
    """The name of the control piece of a target language, such as `<2de>`."""
    return f"<2{language}>"


class Header(JsonObject):
    """`vocabulary.json`."""

    format: Annotated[int, Field(ge=1)]
    kind: Literal["sentencepiece", "whitespace"]
    joint: bool
    controls: dict[str, Annotated[int, Field(ge=FIRST_RESERVED, lt=FIRST_PIECE)]]
    digest: str
    files: dict[str, str]


# ----------------------------------------------------------------------------- one side


class Tokenizer(Protocol):
    """Text of one side to ids and back."""

    suffix: str
    content: bytes
    size: int
    longest: int | None
    """Characters of the longest piece; None when unbounded."""

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids, without control pieces."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The string of each id, none of a control piece."""


class SentencePieceTokenizer:
    """A SentencePiece model; the ids of a foreign one are shifted by FIRST_PIECE."""

    suffix = ".model"

    def __init__(self, content: bytes, where: str) -> None:
        import sentencepiece

        self.content, self.where = content, where
        try:
            # An empty model would load, and fail at the first line only.
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=content or b"?")
            own = self._is_ours()
            names = self.processor.id_to_piece(list(range(self.processor.get_piece_size())))
        except Exception as error:
            what = f"not a SentencePiece model ({first_line(error)})"
            raise ModelError("VOCAB-DAMAGED", where, what, _AGAIN) from None
        self.unknown = self.processor.unk_id()
        self.offset = 0 if own else FIRST_PIECE
        self.size = self.processor.get_piece_size() + self.offset
        self.longest: int | None = max(len(name) for name in names)
        # Of treat_whitespace_as_suffix, which puts the space that each line gets at its end.
        self.marks_ends = "".join(self.processor.encode("a", out_type=str)).endswith(SPACE)

    def _is_ours(self) -> bool:
        p = self.processor
        special = (p.pad_id(), p.unk_id(), p.bos_id(), p.eos_id()) == (PAD, UNK, BEGIN, END)
        reserved = range(FIRST_RESERVED, FIRST_PIECE)
        return special and p.get_piece_size() > FIRST_PIECE and all(map(p.is_control, reserved))

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self.content, self.where)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""
        every: list[list[int]] = self.processor.encode(list(lines), out_type=int, num_threads=1)
        if not self.offset:
            return every
        unknown, offset = self.unknown, self.offset
        return [[UNK if i == unknown else i + offset for i in ids] for ids in every]

    def _to_own(self, ids: Sequence[int]) -> list[int]:
        return [self.unknown if i == UNK else i - self.offset for i in ids]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        if not ids:  # SentencePiece would return one empty line
            return []
        texts: list[str] = self.processor.decode(list(map(self._to_own, ids)), num_threads=1)
        return [text.removesuffix(" ") for text in texts] if self.marks_ends else texts

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The string of each id."""
        names: list[str] = self.processor.id_to_piece(self._to_own(ids))
        return names


class WhitespaceTokenizer:
    """A list of words, which spaces separate in text."""

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
        ids = self.ids
        return [[ids.get(word, UNK) for word in split_words(line)] for line in lines]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        return [" ".join(self.pieces(line)) for line in ids]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The string of each id."""
        return ["<unk>" if i == UNK else self.words[i - FIRST_PIECE] for i in ids]


def split_words(line: str) -> Iterator[str]:
    """Split at spaces and tabs; other white space may be part of a piece."""
    return (word for word in line.replace("\t", " ").split(" ") if word)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


_AGAIN = "prepare again, or give vocabulary.path a good one"
TOKENIZERS: dict[str, type[SentencePieceTokenizer] | type[WhitespaceTokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "whitespace": WhitespaceTokenizer,
}


def open_tokenizer(kind: str, content: bytes, where: str) -> Tokenizer:
    """The tokenizer in the bytes of a file of any origin.

    Raises:
        ModelError: they are damaged, or crash SentencePiece in the child that tries them.
    """
    if kind == "sentencepiece":
        trial.try_model(content, where, _AGAIN)
    return TOKENIZERS[kind](content, where)


# --------------------------------------------------------------------------- both sides


class Vocabulary:
    """Text to ids and back for both sides of a translation direction.

    A joint vocabulary has the same tokenizer as `source` and `target`. `controls` are the ids of
    the control pieces in use, by name. The format says how the source is normalised.
    """

    def __init__(
        self, kind: str, source: Tokenizer, target: Tokenizer, controls: dict[str, int],
        format: int = FORMAT,
    ) -> None:  # fmt: skip
        self.kind, self.source, self.target, self.controls = kind, source, target, controls
        self.format = format
        digests = [hashlib.sha256(side.content).hexdigest() for side in (source, target)]
        key = json.dumps([format, kind, self.joint, controls, digests], sort_keys=True)
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
        """Source lines as they are encoded; a whitespace vocabulary has its own words."""
        if self.kind != "whitespace":
            return list(map(self.normalise, lines))
        return list(lines if self.format == 1 else map(drop_invisible, lines))

    def normalise(self, line: str) -> str:
        """A line of text in the form in which lines are compared."""
        return fold_spaces(line) if self.format == 1 else normalize_source(line)

    def encode_source(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of source lines, normalised first, without `<s>` and `</s>`."""
        return self.source.encode(self.normalise_source(lines))

    def encode_target(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of target lines, without `<s>` and `</s>`."""
        return self.target.encode(lines)

    def decode_target(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of target ids up to `</s>`, without control pieces."""
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

    @cached_property
    def unknown_source_ids(self) -> frozenset[int]:
        """The source ids that spell what no piece spells: that of unknown text, and the bytes."""
        pieces = enumerate(self._source_pieces)
        return frozenset(i for i, piece in pieces if i == UNK or BYTE.fullmatch(piece))

    def _pieces(self, side: Tokenizer) -> list[str]:
        """The string of every id of a side."""
        special = {PAD: "<pad>", UNK: "<unk>", BEGIN: "<s>", END: "</s>"}
        special |= {i: f"<reserved_{i - FIRST_RESERVED}>" for i in range(4, FIRST_PIECE)}
        special |= {i: name for name, i in self.controls.items()}
        return [special[i] for i in range(FIRST_PIECE)] + side.pieces(range(FIRST_PIECE, side.size))

    @property
    def languages(self) -> tuple[str, ...]:
        """The target languages of a multilingual vocabulary: those with a control piece."""
        return tuple(name[2:-1] for name in self.controls if name.startswith("<2"))

    def front(self, language: str) -> tuple[int, ...]:
        """The ids that prefix a source to select the target language; none if monolingual."""
        return (self.controls[language_tag(language)],) if self.languages else ()

    def naming(self, names: Iterable[str]) -> Vocabulary:
        """The same vocabulary with these control pieces added.

        Raises:
            ConfigError: there are too few reserved pieces.
        """
        controls = dict(self.controls)
        for name in names:
            controls.setdefault(name, max(controls.values(), default=FIRST_RESERVED - 1) + 1)
        if max(controls.values(), default=0) >= FIRST_PIECE:
            what = f"{len(controls)} control pieces, and only {N_RESERVED} are reserved"
            raise ConfigError("VOCAB-FULL", "vocabulary", what, "train on fewer languages")
        if controls == self.controls:
            return self
        return Vocabulary(self.kind, self.source, self.target, controls, self.format)

    def save(self, folder: Path) -> None:
        """Write the files of `parts` into a folder."""
        for name, content in self.parts().items():
            files.write_file(folder / name, content)

    def parts(self) -> dict[str, bytes]:
        """The content of each file by name, `vocabulary.json` last."""
        sides = {"": self.source}
        if not self.joint:
            sides = {".source": self.source, ".target": self.target}
        parts = {f"vocabulary{name}{side.suffix}": side.content for name, side in sides.items()}
        header = {
            "format": self.format, "kind": self.kind, "joint": self.joint,
            "source_size": self.source_size, "target_size": self.target_size,
            "controls": self.controls, "digest": self.digest,
            "files": {n: hashlib.sha256(content).hexdigest() for n, content in parts.items()},
        }  # fmt: skip
        return {**parts, "vocabulary.json": files.as_json(header).encode()}

    @classmethod
    def load(cls, folder: Path | zipfile.Path) -> Vocabulary:
        """Load the vocabulary in a folder or in an archive.

        Raises:
            ModelError: missing, damaged, of a newer format, or changed since it was saved.
        """
        where = folder / "vocabulary.json"
        _check_there(folder, where.name)
        header = model_files.read_json(
            where, Header, code="VOCAB-DAMAGED", advice=_AGAIN, newest=FORMAT
        )
        loaded = cls._loaded(folder, header)
        if loaded.digest != header["digest"]:
            what = f"its digest is {loaded.digest[:16]}, not {str(header['digest'])[:16]}"
            raise ModelError("VOCAB-DAMAGED", where, what, _AGAIN)
        return loaded

    @classmethod
    def _loaded(cls, folder: Path | zipfile.Path, header: dict[str, Any]) -> Vocabulary:
        kind, sides = header["kind"], []
        for side in [""] if header["joint"] else [".source", ".target"]:
            name = f"vocabulary{side}{TOKENIZERS[kind].suffix}"
            _check_there(folder, name)
            path = folder / name
            content = model_files.read_bytes(path, MAX_VOCABULARY, "VOCAB-DAMAGED", _AGAIN)
            actual = hashlib.sha256(content).hexdigest()
            expected = header["files"].get(name, "none")
            if actual != expected:
                what = f"its sha256 is {actual[:16]}, not {expected[:16]}"
                raise ModelError("VOCAB-DAMAGED", path, what, _AGAIN)
            sides.append(open_tokenizer(kind, content, str(path)))
        return cls(kind, sides[0], sides[-1], header["controls"], header["format"])


def _check_there(folder: Path | zipfile.Path, name: str) -> None:
    """Raise a ModelError when a folder or an archive has no file or folder of this name."""
    try:
        there = (folder / name).exists()
    except OSError:  # the error of reading it says more
        return
    if not there:
        raise ModelError("VOCAB-NONE", folder, f"{name} is missing", _AGAIN)


def _strip_control_ids(ids: Sequence[int], size: int) -> list[int]:
    """The ids up to `</s>`, without control pieces."""
    before_end = takewhile(lambda i: i != END, map(int, ids))
    return [i for i in before_end if i == UNK or FIRST_PIECE <= i < size]
