"""Train a vocabulary with SentencePiece, or count words."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt.config.schema import Languages, VocabularyConfig
from mt.errors import ConfigError, DataError, ModelError, MtError
from mt.special_tokens import BEGIN, END, FIRST_PIECE, FIRST_RESERVED, N_RESERVED, PAD, UNK
from mt.vocabulary.vocabulary import (
    _NAMED,
    _TOKENIZERS,
    SentencePieceTokenizer,
    Tokenizer,
    Vocabulary,
    WhitespaceTokenizer,
    _first_line,
    _split_words,
    normalize_source,
)

Ranked = list[tuple[str, int]]
"""Words and how often each occurs, the most frequent first."""
_MANY_CHARACTERS = {"zh", "ja", "ko", "yue", "lzh", "cmn", "zho", "jpn", "kor"}
# Its threads' partial sums are added in order, so another number gives another vocabulary.
_TRAINER_THREADS = 16
_UNIGRAM_CHARACTERS = 5_000_000


def sample_rows(count: int, config: VocabularyConfig) -> NDArray[np.int64]:
    """Which of `count` lines to learn from: [at most config.sample], ascending, one a stratum."""
    wanted = min(count, config.sample)
    if wanted == count:
        return np.arange(count)
    place = np.random.Generator(np.random.PCG64(config.seed)).random(wanted)  # [wanted] in [0, 1)
    edges = np.arange(wanted + 1) * count // wanted
    return edges[:-1] + (place * np.diff(edges)).astype(np.int64)


def learn_vocabulary(
    config: VocabularyConfig, languages: Languages, source_lines: Iterable[str],
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
        return open_existing(config)
    normalise = str if config.kind == "whitespace" else normalize_source
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


def open_existing(config: VocabularyConfig) -> Vocabulary:
    """The vocabulary at `config.path`: a run or cache folder, a SentencePiece model, or words."""
    path = Path(config.path or "")
    if path.is_dir():
        return Vocabulary.load(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        advice = "see vocabulary.path: a SentencePiece .model, or a run directory"
        raise ModelError("VOCAB-NONE", path, error.strerror or str(error), advice) from None
    side = _TOKENIZERS[config.kind](content, str(path))
    return Vocabulary(config.kind, side, side, _controls())


def _controls() -> dict[str, int]:
    return {name: FIRST_RESERVED + i for i, name in enumerate(_NAMED)}


def _count(lines: Iterable[str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for line in lines:
        counted.update(_split_words(line))
    # Neither can stand in a list of words, and NUL spoils a SentencePiece model.
    for word in [word for word in counted if "\0" in word or "\n" in word]:
        del counted[word]
    if not counted:
        advice = "see data.train: is there text in it?"
        raise DataError("DATA-EMPTY", "vocabulary", "there is no text to learn it from", advice)
    return counted


def _ranked(counted: Counter[str]) -> Ranked:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _learn_words(
    config: VocabularyConfig, sides: list[Ranked], codes: list[str]
) -> list[Tokenizer]:
    kept = [[word for word, _ in words[: config.size - FIRST_PIECE]] for words in sides]
    return [WhitespaceTokenizer("\n".join(words).encode(), "vocabulary") for words in kept]


def _learn_subwords(
    config: VocabularyConfig, sides: list[Ranked], codes: list[str]
) -> list[Tokenizer]:
    coverages = [_character_coverage(config, code) for code in codes]
    if config.model == "unigram":
        sides = [_thin_words(words) for words in sides]

    def learn(size: int) -> list[bytes]:
        pairs = zip(sides, coverages, strict=True)
        return [_train_subwords(config, words, coverage, size) for words, coverage in pairs]

    try:
        return [SentencePieceTokenizer(content, "vocabulary") for content in learn(config.size)]
    except RuntimeError as error:
        raise _describe_failure(error, config.size, learn) from None


def _thin_words(words: Ranked) -> Ranked:
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


def _character_coverage(config: VocabularyConfig, codes: str) -> float:
    if config.character_coverage != "auto":
        return config.character_coverage
    plain = {code.lower().replace("_", "-").split("-")[0] for code in codes.split()}
    return 0.9995 if plain & _MANY_CHARACTERS else 1.0


def _train_subwords(config: VocabularyConfig, words: Ranked, coverage: float, size: int) -> bytes:
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


def _describe_failure(error: RuntimeError, wanted: int, learn: Callable[[int], object]) -> MtError:
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
