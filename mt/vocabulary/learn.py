"""Train a vocabulary with SentencePiece, or count words."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt.config.schema import Languages, VocabularyConfig
from mt.errors import ConfigError, DataError, ModelError, MtError
from mt.runtime import model_files
from mt.runtime.signals import run_in_thread
from mt.special_tokens import BEGIN, END, FIRST_PIECE, FIRST_RESERVED, N_RESERVED, PAD, UNK
from mt.vocabulary import trial
from mt.vocabulary.normalization import drop_invisible, normalize_source
from mt.vocabulary.vocabulary import (
    NAMED_CONTROLS,
    SentencePieceTokenizer,
    Tokenizer,
    Vocabulary,
    WhitespaceTokenizer,
    first_line,
    open_tokenizer,
    split_words,
)

Ranked = list[tuple[str, int]]
"""Words and their counts, the most frequent first."""
_MANY_CHARACTERS = {"zh", "ja", "ko", "yue", "lzh", "cmn"}
# Its threads' partial sums are added in order, so another number gives another vocabulary.
_TRAINER_THREADS = 16
_UNIGRAM_CHARACTERS = 5_000_000


def sample_rows(count: int, config: VocabularyConfig) -> NDArray[np.int64]:
    """A stratified sample of `count` lines to learn from: [at most config.sample], ascending."""
    size = min(count, config.sample)
    if size == count:
        return np.arange(count)
    place = np.random.Generator(np.random.PCG64(config.seed)).random(size)  # [size] in [0, 1)
    edges = np.arange(size + 1) * count // size
    return edges[:-1] + (place * np.diff(edges)).astype(np.int64)


def learn_vocabulary(
    config: VocabularyConfig, languages: Languages, source_lines: Iterable[str],
    target_lines: Iterable[str], either: bool = False,
) -> Vocabulary:  # fmt: skip
    """Learn a vocabulary from all lines, or open the one that `config.path` names.

    Memory grows with the number of distinct words. With `either` one side may be empty.

    Raises:
        ConfigError: `vocabulary.size` is too large or too small for the text.
        DataError: there is no text.
        ModelError: `vocabulary.path` is missing or no vocabulary.
    """
    if config.path is not None:
        return open_existing(config)
    normalise = drop_invisible if config.kind == "whitespace" else normalize_source
    sides: list[Iterable[str]] = [map(normalise, source_lines), target_lines]
    codes = [languages.source, languages.target]
    if config.joint and either:
        sides = [chain(*sides)]
    counts = [_count(lines) for lines in sides]
    if config.joint:
        counts, codes = [sum(counts, Counter())], [" ".join(codes)]
    ranked = [sorted(each.items(), key=lambda item: (-item[1], item[0])) for each in counts]
    if config.kind == "whitespace":
        tokenizers = _learn_words(config, ranked)
    else:
        tokenizers = _learn_subwords(config, ranked, codes)
    return Vocabulary(config.kind, tokenizers[0], tokenizers[-1], _controls())


def open_existing(config: VocabularyConfig) -> Vocabulary:
    """The vocabulary at `config.path`: a run or cache folder, a SentencePiece model, or words."""
    path = Path(config.path or "")
    if path.is_dir():
        return Vocabulary.load(path)
    advice = "see vocabulary.path: a SentencePiece .model, or a run directory"
    content = model_files.read_bytes(path, model_files.MAX_VOCABULARY, "VOCAB-NONE", advice)
    if config.kind == "whitespace":
        content = clean_word_list(content, path)
    side = open_tokenizer(config.kind, content, str(path))
    return Vocabulary(config.kind, side, side, _controls())


def clean_word_list(content: bytes, path: Path) -> bytes:
    """A list of words without a byte order mark and carriage returns.

    Raises:
        ModelError: a line is blank, or has more than a word, such as a count; names the line.
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    lines = [line.removesuffix(b"\r") for line in lines]
    for number, line in enumerate(lines, start=1):
        fields = line.replace(b"\t", b" ").split(b" ")
        if len(fields) > 1 or not line:
            what = f"{line.decode(errors='replace')!r} is not one word" if line else "is blank"
            advice = "a list has one word a line, without counts: cut -d' ' -f1, or cut -f1"
            raise ModelError("VOCAB-LIST", f"{path}:{number}", what, advice)
    return b"\n".join(lines)


def _controls() -> dict[str, int]:
    return {name: FIRST_RESERVED + i for i, name in enumerate(NAMED_CONTROLS)}


def _count(lines: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(split_words(line))
    # A list of words is split at newlines, and NUL corrupts a SentencePiece model.
    for word in [word for word in counts if "\0" in word or "\n" in word]:
        del counts[word]
    if not counts:
        advice = "see data.train: is there text in it?"
        raise DataError("DATA-EMPTY", "vocabulary", "there is no text to learn it from", advice)
    return counts


def _learn_words(config: VocabularyConfig, sides: list[Ranked]) -> list[Tokenizer]:
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
    """Scale the counts down to the memory of the unigram trainer.

    It keeps each occurrence of a word, at about 18 bytes per character. Rounding errors carry over
    to the next word, so that rare words together keep their share.
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
    return 0.9995 if _MANY_CHARACTERS.intersection(codes.split()) else 1.0


def _train_subwords(config: VocabularyConfig, words: Ranked, coverage: float, size: int) -> bytes:
    """The bytes of a SentencePiece model of exactly `size` pieces; RuntimeError if impossible.

    Pieces never cross a space, so words with their counts are equivalent to their lines.
    """
    import sentencepiece

    reserved = [
        *NAMED_CONTROLS,
        *(f"<reserved_{i}>" for i in range(len(NAMED_CONTROLS), N_RESERVED)),
    ]
    model = io.BytesIO()
    train = partial(
        sentencepiece.SentencePieceTrainer.train,
        sentence_iterator=(f"{word}\t{count}" for word, count in words),
        input_format="tsv", model_writer=model, model_type=config.model, vocab_size=size,
        character_coverage=coverage, byte_fallback=True,
        pad_id=PAD, unk_id=UNK, bos_id=BEGIN, eos_id=END, control_symbols=",".join(reserved),
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        max_sentence_length=1 << 16, num_threads=_TRAINER_THREADS, minloglevel=2,
    )  # fmt: skip
    run_in_thread(train)  # takes minutes
    trial.mark_sound(model.getvalue())
    return model.getvalue()


def _describe_failure(
    error: RuntimeError, requested: int, learn: Callable[[int], object]
) -> MtError:
    """Explain an error of SentencePiece, with a size that is tried and works."""
    where, size = "vocabulary.size", requested
    while match := re.search(r"set it to a value <= (\d+)", str(error)):
        size = int(match[1])
        try:
            learn(size)
        except RuntimeError as smaller:
            error = smaller
            continue
        what = f"{requested} is too large for this text; the largest possible is {size}"
        advice = f"set vocabulary.size={size} or less, or train on more text"
        return ConfigError("VOCAB-TOO-BIG", where, what, advice)
    if match := re.search(r"required_chars\D*\d+ vs (\d+)", str(error)):
        what = f"{size} is too small for the characters of this text; it takes {match[1]}"
        advice = f"set vocabulary.size={match[1]} or more, or lower vocabulary.character_coverage"
        return ConfigError("VOCAB-TOO-SMALL", where, what, advice)
    advice = "is there ordinary text in data.train?"
    return DataError("VOCAB", "vocabulary", f"cannot be learned ({first_line(error)})", advice)
