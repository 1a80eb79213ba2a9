"""The vocabulary: text to ids and back, learned with SentencePiece or given.

Ids 0 to 3 are pad, unk, begin and end, 4 to 67 are control pieces that no text can become,
and from 68 on stand the pieces of text: with byte fallback the 256 bytes first, so that no
character is unknown. The source is normalised (NFKC, white space folded); the target is left
as it is and comes back from its ids unchanged. (White space within a line U+2581 apart.)
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from mt.config.yaml_reader import InputFile, Section
from mt.errors import ConfigError, DataError, ModelError, MtError
from mt.interfaces import BEGIN, END, FIRST_PIECE, FIRST_RESERVED, N_RESERVED, PAD, UNK, Languages
from mt.runtime import files
from mt.vocabulary.subword_sampling import Sampling

Ranked = list[tuple[str, int]]
"""Words and how often each occurs, the most frequent first."""

FORMAT = 1
_NAMED = ("<mask>", "<bt>")
_MANY_CHARACTERS = {"zh", "ja", "ko", "yue", "lzh", "cmn", "zho", "jpn", "kor"}
# Its threads' partial sums are added in order, so another number gives another vocabulary.
_TRAINER_THREADS = 16
_UNIGRAM_CHARACTERS = 5_000_000


class Config(Section):
    """What text is cut into."""

    kind: Literal["sentencepiece", "whitespace"] = "sentencepiece"
    """`sentencepiece`: subwords; `whitespace`: for text that is already cut into pieces."""
    size: int = Field(8000, gt=FIRST_PIECE, lt=2**31)
    """Number of ids, the 68 special and reserved and the 256 bytes included; for `whitespace`
    the most there may be."""
    model: Literal["unigram", "bpe"] = "unigram"
    """How subwords are learned."""
    joint: bool = True
    """One vocabulary for both sides, or one for each."""
    character_coverage: Literal["auto"] | float = "auto"
    """Share of all characters that get a piece of their own, the rest are spelled in bytes;
    `auto`: 0.9995 where a side is Chinese, Japanese or Korean, else 1.0."""
    path: InputFile | None = None
    """An existing vocabulary to use as it is: a SentencePiece `.model`, or a run directory."""
    sample: int = Field(1_000_000, ge=1)
    """Most lines of each side that it is learned from, spread over the whole corpus."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Chooses the lines of the sample."""
    sampling: Sampling = Sampling()
    """Subword regularisation: in training words are cut in other ways, drawn for each epoch."""

    @field_validator("character_coverage")
    @classmethod
    def _a_share(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError(f"should be auto or above 0 and at most 1, got {value}")
        return value

    @model_validator(mode="after")
    def _can_be_sampled(self) -> Config:
        model = self.model if self.kind == "sentencepiece" else self.kind
        for name in ("source", "target"):
            wanted = getattr(self.sampling, name).kind
            # What a vocabulary that is there already is, it tells when it is opened.
            if wanted not in (None, model) and (self.path is None or self.kind == "whitespace"):
                key = "dropout" if wanted == "bpe" else "alpha"
                raise ValueError(f"sampling.{name}.{key} is for model: {wanted}, not for {model}")
        return self


def fold(line: str) -> str:
    """The source side of a line: NFKC, each run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", line).split())


def tag(language: str) -> str:
    """The name of the control piece that stands for a language, such as `<2de>`."""
    return f"<2{language}>"


def sample_rows(count: int, config: Config) -> NDArray[np.int64]:
    """Which of `count` lines to learn from: [at most config.sample], ascending, one a stratum."""
    wanted = min(count, config.sample)
    if wanted == count:
        return np.arange(count)
    place = np.random.Generator(np.random.PCG64(config.seed)).random(wanted)  # [wanted] in [0, 1)
    edges = np.arange(wanted + 1) * count // wanted
    return edges[:-1] + (place * np.diff(edges)).astype(np.int64)


# ----------------------------------------------------------------------------- one side


class Cutter(Protocol):
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


class _Subwords:
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
        return _Subwords, (self.content, self.where)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self.processor.encode(list(lines), out_type=int, num_threads=1)
        if not self.offset:
            return found
        unknown, offset = self.unknown, self.offset
        return [[UNK if i == unknown else i + offset for i in ids] for ids in found]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        own = [[self.unknown if i == UNK else i - self.offset for i in line] for line in ids]
        # Of no lines at all it makes one, "".
        found: list[str] = self.processor.decode(own, num_threads=1) if own else []
        return found

    def pieces(self, ids: Sequence[int]) -> list[str]:
        found: list[str] = self.processor.id_to_piece(
            [self.unknown if i == UNK else i - self.offset for i in ids]
        )
        return found


class _Words:
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
        return _Words, (self.content, self.where)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        known = self.ids
        return [[known.get(word, UNK) for word in _words(line)] for line in lines]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return [" ".join(self.pieces(line)) for line in ids]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return ["<unk>" if i == UNK else self.words[i - FIRST_PIECE] for i in ids]


def _words(line: str) -> Iterator[str]:
    """What stands between spaces and tabs; other white space may be part of a given piece."""
    return (word for word in line.replace("\t", " ").split(" ") if word)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_AGAIN = "prepare again, or give vocabulary.path a good one"
_CUTTERS: dict[str, type[_Subwords] | type[_Words]] = {
    "sentencepiece": _Subwords,
    "whitespace": _Words,
}


# --------------------------------------------------------------------------- both sides


class Vocabulary:
    """Text to ids and back for both sides of a translation direction.

    Args:
        kind: `sentencepiece` or `whitespace`.
        source, target: what cuts each side, the same object when the vocabulary is joint.
        controls: names of the control pieces that are in use, and their ids.
    """

    def __init__(self, kind: str, source: Cutter, target: Cutter, controls: dict[str, int]) -> None:
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
        return list(lines) if self.kind == "whitespace" else [fold(line) for line in lines]

    def encode_source(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of source lines, normalised first, without `<s>` and `</s>`."""
        return self.source.encode(self.normalise_source(lines))

    def encode_target(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of target lines as they are, without `<s>` and `</s>`."""
        return self.target.encode(lines)

    def decode_target(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of target ids up to their end; control pieces are left out."""
        return self.target.decode([_text_ids(line, self.target_size) for line in ids])

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

    def _pieces(self, side: Cutter) -> list[str]:
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
        return (self.controls[tag(language)],) if self.languages else ()

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
            files.write(folder / name, content)

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
        cut = _CUTTERS[header["kind"]]
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


def _sides(source: Cutter, target: Cutter) -> dict[str, Cutter]:
    return {".source": source, ".target": target}


def _text_ids(ids: Sequence[int], size: int) -> list[int]:
    found = []
    for i in map(int, ids):
        if i == END:
            break
        if i == UNK or FIRST_PIECE <= i < size:
            found.append(i)
    return found


# ------------------------------------------------------------------------------ training


def train(
    config: Config, languages: Languages, source_lines: Iterable[str],
    target_lines: Iterable[str], either: bool = False,
) -> Vocabulary:  # fmt: skip
    """A vocabulary learned from all the lines given, or the one that `config.path` names.

    What it needs of the lines is how often each word occurs, so memory goes with the number
    of distinct words. With `either` one side may be empty, as of monolingual text.

    Raises:
        ConfigError: `vocabulary.size` is more than the text allows, or too little for it.
        DataError: no text.
        ModelError: `vocabulary.path` is missing or no vocabulary.
    """
    if config.path is not None:
        return existing(config)
    normalise = str if config.kind == "whitespace" else fold
    sides: list[Iterable[str]] = [map(normalise, source_lines), target_lines]
    codes = [languages.source, languages.target]
    if config.joint and either:
        sides = [chain(*sides)]
    counts = [_count(lines) for lines in sides]
    if config.joint:
        counts, codes = [sum(counts, Counter())], [" ".join(codes)]
    learn = _learn_words if config.kind == "whitespace" else _learn_subwords
    cutters = learn(config, [_ranked(counted) for counted in counts], codes)
    return Vocabulary(config.kind, cutters[0], cutters[-1], _controls())


def existing(config: Config) -> Vocabulary:
    """The vocabulary at `config.path`: a run or cache folder, a SentencePiece model, or words."""
    path = Path(config.path or "")
    if path.is_dir():
        return Vocabulary.load(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        advice = "see vocabulary.path: a SentencePiece .model, or a run directory"
        raise ModelError("VOCAB-NONE", path, error.strerror or str(error), advice) from None
    side = _CUTTERS[config.kind](content, str(path))
    return Vocabulary(config.kind, side, side, _controls())


def _controls() -> dict[str, int]:
    return {name: FIRST_RESERVED + i for i, name in enumerate(_NAMED)}


def _count(lines: Iterable[str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for line in lines:
        counted.update(_words(line))
    # Neither can stand in a list of words, and NUL spoils a SentencePiece model.
    for word in [word for word in counted if "\0" in word or "\n" in word]:
        del counted[word]
    if not counted:
        advice = "see data.train: is there text in it?"
        raise DataError("DATA-EMPTY", "vocabulary", "there is no text to learn it from", advice)
    return counted


def _ranked(counted: Counter[str]) -> Ranked:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _learn_words(config: Config, sides: list[Ranked], codes: list[str]) -> list[Cutter]:
    kept = [[word for word, _ in words[: config.size - FIRST_PIECE]] for words in sides]
    return [_Words("\n".join(words).encode(), "vocabulary") for words in kept]


def _learn_subwords(config: Config, sides: list[Ranked], codes: list[str]) -> list[Cutter]:
    coverages = [_coverage(config, code) for code in codes]
    if config.model == "unigram":
        sides = [_thinned(words) for words in sides]

    def learn(size: int) -> list[bytes]:
        pairs = zip(sides, coverages, strict=True)
        return [_train_subwords(config, words, coverage, size) for words, coverage in pairs]

    try:
        return [_Subwords(content, "vocabulary") for content in learn(config.size)]
    except RuntimeError as error:
        raise _told(error, config.size, learn) from None


def _thinned(words: Ranked) -> Ranked:
    """The words in proportion, but not more of them than the unigram trainer may lay out.

    It holds each occurrence of a word in memory, at about 18 bytes a character. What a count
    loses in rounding goes to the next word, so that rare words keep their share together.
    """
    scale = _UNIGRAM_CHARACTERS / sum((len(word) + 1) * count for word, count in words)
    if scale >= 1:
        return words
    kept, carried = [], 0.0
    for word, count in words:
        carried += count * scale
        if carried >= 1:
            kept.append((word, int(carried)))
            carried %= 1
    return kept


def _coverage(config: Config, codes: str) -> float:
    if config.character_coverage != "auto":
        return config.character_coverage
    plain = {code.lower().replace("_", "-").split("-")[0] for code in codes.split()}
    return 0.9995 if plain & _MANY_CHARACTERS else 1.0


def _train_subwords(config: Config, words: Ranked, coverage: float, size: int) -> bytes:
    """The bytes of a SentencePiece model of exactly `size` pieces; RuntimeError if it cannot be.

    Pieces never cross a space, so words with their counts teach it the same as their lines.
    """
    import sentencepiece

    reserved = [*_NAMED, *(f"<reserved_{i}>" for i in range(len(_NAMED), N_RESERVED))]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in words),
        input_format="tsv", model_writer=model, model_type=config.model, vocab_size=size,
        character_coverage=coverage, byte_fallback=True,
        pad_id=PAD, unk_id=UNK, bos_id=BEGIN, eos_id=END, control_symbols=",".join(reserved),
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        max_sentence_length=1 << 16, num_threads=_TRAINER_THREADS, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def _told(error: RuntimeError, wanted: int, learn: Callable[[int], object]) -> MtError:
    """What SentencePiece's refusal means, with a size that is known to succeed."""
    where, size = "vocabulary.size", wanted
    while found := re.search(r"set it to a value <= (\d+)", str(error)):
        size = int(found[1])
        try:
            learn(size)
        except RuntimeError as smaller:
            error = smaller
            continue
        what = f"{wanted} is too large for this text; the largest possible is {size}"
        advice = f"set vocabulary.size={size} or less, or train on more text"
        return ConfigError("VOCAB-TOO-BIG", where, what, advice)
    if found := re.search(r"required_chars\D*\d+ vs (\d+)", str(error)):
        what = f"{size} is too small for the characters of this text; it takes {found[1]}"
        advice = f"set vocabulary.size={found[1]} or more, or lower vocabulary.character_coverage"
        return ConfigError("VOCAB-TOO-SMALL", where, what, advice)
    advice = "is there ordinary text in data.train?"
    return DataError("VOCAB", "vocabulary", f"cannot be learned ({_first_line(error)})", advice)
