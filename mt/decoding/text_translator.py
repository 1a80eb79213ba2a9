"""An engine over anything that searches ids: lines to sentences, hypotheses to translations.

Lines are read in windows, cut into sentences that fit the model, encoded, searched, decoded and
given back in their order. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, cast

from mt.config.plugins import Plugin
from mt.config.schema import Languages, SearchConfig
from mt.config.section import Section
from mt.config.validation import validate
from mt.config.yaml_reader import Document, Location
from mt.data.languages import base_code, sentence_separator
from mt.data.pairs import Pair
from mt.data.text import is_blank, one_line, split_sentences
from mt.decoding.batching import LineWarnings, growing_windows
from mt.decoding.types import EngineOptions, Hypothesis, Score, Searcher, Sentence, Translation
from mt.errors import ConfigError, DataError, ModelError
from mt.runtime import console
from mt.special_tokens import END

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Profile:
    """What translating with a model needs to know of it besides its weights."""

    languages: Languages
    longest: int
    """Most pieces of a side, end included."""
    positions: int | None
    """Most positions that the model knows; None: any number."""
    search: SearchConfig
    """The search of its recipe."""


class TextTranslator:
    """Translates and scores text with a searcher; see `mt.contracts.Engine`.

    Raises:
        ConfigError: the options hold a wrong search setting.
    """

    def __init__(
        self, searcher: Searcher, vocabulary: Vocabulary, profile: Profile, options: EngineOptions
    ) -> None:
        self.searcher, self.vocabulary, self.profile = searcher, vocabulary, profile
        self.options = options
        search_config(profile.search, options.search)  # a wrong setting is told at once

    def target(self, asked: str | None) -> str:
        """The language to be written: the one that is asked for, else the recipe's.

        Raises:
            ConfigError: the model does not know it; names those it knows.
        """
        own, named = self.profile.languages.target, self.vocabulary.languages
        wanted = own if asked is None else asked
        if wanted in named or (not named and base_code(wanted) == base_code(own)):
            return wanted
        known = ", ".join(named or (own,))
        what = f"this model translates to {known}, not to {wanted}"
        advice = "choose one of these" if named else "leave it out"
        raise ConfigError("ENGINE", "--to", what, advice)

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order, lazily."""
        job = _TranslationJob(self, options or self.options)
        yield from job.translate(lines)
        warn_long_lines(job.long)

    def sentence(self, line: str, options: EngineOptions | None = None) -> Sentence:
        """A line as it is searched, for who looks into a model; it must fit the model whole.

        Raises:
            DataError: it does not, or there is nothing in it.
        """
        job = _TranslationJob(self, options or self.options)
        sentences = job.sentences([line])[1]
        if not sentences:
            what = "there is nothing in it to translate"
            raise DataError("LINE-BLANK", "the source", what, "give it some text")
        if job.long.count:
            what = f"more than the {job.long.room} pieces that the model has room for"
            raise DataError("LINE-LONG", "the source", what, "give one sentence at a time")
        return sentences[0]

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target; what is too long is cut, with a warning."""
        room = self.profile.longest - 1 - len(self.vocabulary.languages[:1])
        long = _LongLines(room, self.options.strict)
        first = 1
        for window in growing_windows(pairs, low_latency=self.options.low_latency):
            yield from self._score(window, long, first)
            first += len(window)
        warn_long_lines(long, "cut")

    def _score(self, window: Sequence[Pair], long: _LongLines, first: int) -> list[Score]:
        for pair in window:
            if pair.source is None or pair.target is None:
                advice = "give pairs of a source and a target"
                raise DataError("SCORE-SIDE", pair.origin, "a side is missing", advice)
        sources = self.vocabulary.encode_source([cast(str, pair.source) for pair in window])
        targets = self.vocabulary.encode_target([cast(str, pair.target) for pair in window])
        both = list(zip(sources, targets, strict=True))
        for line, (source, target) in enumerate(both, start=first):
            long.see(line, max(len(source), len(target)))
        room = long.room
        fronts = [self._front(pair) for pair in window]
        ids = [
            ([*front, *source[:room], END], [*target[:room], END])
            for front, (source, target) in zip(fronts, both, strict=True)
        ]
        forced = self.searcher.force(ids)
        return [self._told(target, gains) for (_, target), gains in zip(ids, forced, strict=True)]

    def _front(self, pair: Pair) -> tuple[int, ...]:
        """What tells the language of a pair's target."""
        wanted = pair.target_language or self.options.target_language
        if not self.vocabulary.languages:
            return ()
        return self.vocabulary.front(self.target(wanted))

    def _told(self, target: Sequence[int], gains: Sequence[float]) -> Score:
        total = math.fsum(gains)
        if math.isnan(total):
            what = "the model's probabilities are not numbers"
            advice = "its training diverged; choose another checkpoint with --checkpoint"
            raise ModelError("MODEL-NAN", "the model", what, advice)
        pieces = tuple(self.vocabulary.pieces_target(target))
        return Score(total, len(gains), tuple(gains), pieces)


class _LongLines(LineWarnings):
    """The lines that are too long for the model, which has room for so many pieces."""

    def __init__(self, room: int, strict: bool) -> None:
        super().__init__()
        self.room, self.strict = room, strict

    def see(self, line: int, pieces: int) -> bool:
        """Whether this line, counted from 1, is one of them.

        Raises:
            DataError: it is, and such lines are not wanted.
        """
        if pieces <= self.room:
            return False
        if self.strict:
            what = f"{pieces} pieces, the model has room for {self.room}"
            raise DataError("LINE-LONG", f"line {line}", what, "shorten it, or leave out --strict")
        self.add(line)
        return True


@dataclass(frozen=True)
class _Window:
    """Lines whose sentences are being searched."""

    lines: Sequence[int]
    """For each sentence its line in the window."""
    count: int
    """How many lines."""
    sentences: Sequence[Sentence]
    found: Iterator[list[Hypothesis]]


class _TranslationJob:
    """One call of `translate`: its search, its place in the stream, what was too long."""

    def __init__(self, engine: TextTranslator, options: EngineOptions) -> None:
        self.engine = engine
        target = engine.target(options.target_language)
        self.front, self.space = engine.vocabulary.front(target), sentence_separator(target)
        self.options = replace(options, prefixes=None)  # they go with the sentences
        self.config = search_config(engine.profile.search, options.search)
        self.prefixes = None if options.prefixes is None else iter(options.prefixes)
        self.read = options.line_offset
        self.room = engine.profile.longest - 1 - len(self.front)
        self.long = _LongLines(self.room, options.strict)

    def translate(self, lines: Iterable[str]) -> Iterator[Translation]:
        """The translations of lines, in order."""
        prefetch = 0 if self.options.line_buffered else self.engine.searcher.prefetch_windows
        waiting: deque[_Window] = deque()
        for window in growing_windows(lines, self.options.line_buffered, self.options.low_latency):
            waiting.append(self._begin(window))
            while len(waiting) > prefetch:
                yield from self._end(waiting.popleft())
        while waiting:
            yield from self._end(waiting.popleft())
        if self.prefixes is not None and next(self.prefixes, None) is not None:
            what, advice = f"there are more than the {self.read} lines", "give one for each line"
            raise DataError("PREFIX-LINES", "the prefixes", what, advice)

    def _begin(self, window: Sequence[str]) -> _Window:
        lines, sentences = self.sentences(window)
        self.read += len(window)
        found = self.engine.searcher.search(sentences, self.config, self.options)
        return _Window(lines, len(window), sentences, found)

    def _end(self, window: _Window) -> Iterator[Translation]:
        parts: list[list[Translation]] = [[] for _ in range(window.count)]
        found = list(window.found)
        tokens = [each.tokens for hypotheses in found for each in hypotheses]
        texts = iter(self.engine.vocabulary.decode_target(tokens))  # in one call, which costs less
        for line, sentence, hypotheses in zip(window.lines, window.sentences, found, strict=True):
            told = list(zip(hypotheses, islice(texts, len(hypotheses)), strict=True))
            parts[line].append(self._told(sentence, told))
        for each in parts:
            yield each[0] if len(each) == 1 else merge_translations(each, self.space)

    def sentences(self, window: Sequence[str]) -> tuple[list[int], list[Sentence]]:
        """What is to be searched: for each sentence its line in the window, and itself."""
        wanted = [i for i, line in enumerate(window) if not is_blank(line)]
        encoded = self.engine.vocabulary.encode_source([window[i] for i in wanted])
        prefixes = self._prefixes(len(window))
        lines, sentences = list[int](), list[Sentence]()
        for i, ids in zip(wanted, encoded, strict=True):
            parts = [ids]
            if self.long.see(self.read + i + 1, len(ids)):
                parts = self._split(window[i])
            for number, part in enumerate(filter(None, parts)):
                lines.append(i)
                prefix = prefixes[i] if number == 0 else []
                sentences.append(self._sentence(part, prefix, self.read + i))
        return lines, sentences

    def _sentence(self, ids: Sequence[int], prefix: Sequence[int], line: int) -> Sentence:
        config, known = self.config, self.engine.profile.positions or 1 << 30
        room = int(config.max_length_ratio * len(ids)) + config.max_length_extra + 1
        length = min(max(room, len(prefix) + 2), known)
        if len(prefix) >= length:
            what = f"a prefix of {len(prefix)} pieces leaves no room in {length}"
            advice = "give a shorter one"
            raise DataError("PREFIX-LONG", f"prefix {line + 1}", what, advice)
        return Sentence([*self.front, *ids, END], length, prefix, self.options.seed + line)

    def _prefixes(self, count: int) -> list[list[int]]:
        """The forced beginnings of the next `count` lines, in ids."""
        if self.prefixes is None:
            return [[] for _ in range(count)]
        texts = [next(self.prefixes, None) for _ in range(count)]
        if None in texts:
            line = self.read + texts.index(None) + 1
            advice = "give one for each line; an empty one forces nothing"
            raise DataError("PREFIX-LINES", f"line {line}", "there is no prefix for it", advice)
        return self.engine.vocabulary.encode_target(cast(list[str], texts))

    def _split(self, line: str) -> list[list[int]]:
        """The pieces of a line as parts that fit, each of as many sentences as fit."""
        encode, room = self.engine.vocabulary.encode_source, self.room
        sentences = split_sentences(line)
        parts: list[str] = []
        length = room + 1  # of the last part, so that the first sentence begins one
        for text, ids in zip(sentences, encode(sentences), strict=True):
            if length + len(ids) <= room:
                parts[-1] += text
                length += len(ids)
            else:
                parts.append(text)
                length = len(ids)
        return [ids[:room] for ids in encode(parts)]

    def _told(self, sentence: Sentence, found: Sequence[tuple[Hypothesis, str]]) -> Translation:
        """Hypotheses and their texts: the best one, within it all when several were asked for."""
        vocabulary = self.engine.vocabulary
        pieces = tuple(vocabulary.pieces_source(sentence.source[sentence.front : -1]))
        nbest = [
            to_translation(vocabulary, pieces, hypothesis, text, sentence)
            for hypothesis, text in found
        ]
        return replace(nbest[0], alternatives=tuple(nbest)) if self.options.n_best > 1 else nbest[0]


def to_translation(
    vocabulary: Vocabulary, pieces: tuple[str, ...], found: Hypothesis, text: str,
    sentence: Sentence,
) -> Translation:  # fmt: skip
    """One hypothesis; what would end a line in its text becomes a space.

    Args:
        pieces: of the source's text; in the alignment only they have a column.
    """
    front = sentence.front
    rows = found.alignment and found.alignment[:-1]
    return Translation(
        text=one_line(text),
        score=found.score,
        tokens=tuple(vocabulary.pieces_target(found.tokens[:-1])),
        log_probabilities=tuple(found.log_probabilities),
        source_tokens=pieces,
        alignment=None
        if rows is None
        else tuple(tuple(row[front : front + len(pieces)]) for row in rows),
        prefix=vocabulary.decode_target([sentence.prefix])[0] if sentence.prefix else "",
    )


SPLIT_ACTION = "split at sentence ends, or cut where there are none"


def warn_long_lines(long: _LongLines, done: str = SPLIT_ACTION) -> None:
    """Warn once of all lines that were too long for the model, and say what was done to them."""
    if long.count:
        console.print_line(
            f"mt: warning[LINE-LONG] {long.count} lines of more than {long.room} pieces were "
            f"{done}: {long}"
        )


# ------------------------------------------------------------------------------- settings


class _Settings(Section):
    """Wraps the search section, so that problems are told with their whole key."""

    search: Annotated[SearchConfig, Plugin("search")]


def search_config(own: SearchConfig, settings: Any) -> SearchConfig:
    """The recipe's search with `settings` replaced; of another kind, with its own defaults.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    kept = own.model_dump(mode="json")
    if settings.get("kind", own.kind) != own.kind:
        kept = {key: kept[key] for key in SearchConfig.model_fields}
    said: dict[Location, str] = {
        ("search", key): f"--set search.{key}={value}" for key, value in settings.items()
    }
    said["search",] = said.get(("search", "kind"), "--set")
    document = Document({"search": {**kept, **settings}}, said, name="--set")
    return validate(_Settings, document).search


def batch_token_budget(config: SearchConfig, options: EngineOptions) -> int:
    """Padded source positions of one batch: what is asked for is times beams, or samples."""
    return options.batch_tokens // max(options.n_best, getattr(config, "beams", 1))


def merge_translations(parts: Sequence[Translation], space: str) -> Translation:
    """The translation of a line from those of its parts; the scores are added."""
    ranked = zip(*(part.alternatives for part in parts), strict=False)
    return Translation(
        text=space.join(part.text for part in parts),
        score=math.fsum(part.score for part in parts),
        tokens=tuple(token for part in parts for token in part.tokens),
        log_probabilities=tuple(gain for part in parts for gain in part.log_probabilities),
        alternatives=tuple(merge_translations(each, space) for each in ranked),
        source_tokens=tuple(token for part in parts for token in part.source_tokens),
        alignment=_merge_alignments(parts),
        prefix=parts[0].prefix if parts else "",
    )


def _merge_alignments(parts: Sequence[Translation]) -> tuple[tuple[float, ...], ...] | None:
    """The alignments of parts as one: no token of a part is aligned with another part."""
    if not parts or any(part.alignment is None for part in parts):
        return None
    total, before, rows = sum(len(part.source_tokens) for part in parts), 0, []
    for part in parts:
        after = total - before - len(part.source_tokens)
        rows += [(*[0.0] * before, *row, *[0.0] * after) for row in part.alignment or ()]
        before += len(part.source_tokens)
    return tuple(rows)
