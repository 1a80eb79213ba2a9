"""An engine over any searcher of ids: lines to sentences, hypotheses to translations.

Lines are read in windows, split into sentences that fit the model, encoded, searched, decoded and
returned in their order. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, cast

from mt.config.plugins import Plugin, dotted_kinds, trust_kinds
from mt.config.schema import Languages, SearchConfig
from mt.config.validation import validate_section
from mt.config.yaml_reader import Location
from mt.data.languages import (
    SPACELESS,
    SPACELESS_WORDS,
    base_code,
    find_code,
    sentence_separator,
)
from mt.data.pairs import Pair
from mt.data.sentences import ANY_LENGTHS, UsualLengths, halve, split_sentences
from mt.data.text import is_blank, one_line
from mt.decoding.batching import BATCH_TOKENS, LineWarnings, growing_windows
from mt.decoding.kept_text import Rest
from mt.decoding.letter_case import capitalise, is_capitals, restore_case
from mt.decoding.second_search import SecondSearch
from mt.decoding.types import (
    ONE_SEARCH,
    EngineOptions,
    Hypothesis,
    Score,
    Searcher,
    Sentence,
    Translation,
)
from mt.errors import ConfigError, DataError, ModelError
from mt.runtime import console
from mt.special_tokens import END

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary


LIKELY_END = math.log(0.5)
"""The log-probability from which on an end is likelier than any other piece."""


@dataclass(frozen=True)
class Profile:
    """Properties of a model, besides its weights, that translation needs."""

    languages: Languages
    longest: int
    """Most pieces of a side, end included."""
    positions: int | None
    """Most positions of the model; None: no limit."""
    search: SearchConfig
    """The search of its recipe."""
    usual: UsualLengths
    """What its training text has."""


class TextTranslator:
    """An `Engine` that translates and scores text with a searcher.

    Raises:
        ConfigError: a wrong search setting in the options.
    """

    def __init__(
        self, searcher: Searcher, vocabulary: Vocabulary, profile: Profile, options: EngineOptions
    ) -> None:
        self.searcher, self.vocabulary, self.profile = searcher, vocabulary, profile
        self.options = options
        search_config(profile.search, options.search)  # reports a wrong setting at once

    def target(self, language: str | None) -> str:
        """The target language: the given one, else the recipe's.

        Raises:
            ConfigError: the model does not translate to it.
        """
        own, known = self.profile.languages.target, self.vocabulary.languages
        target = own if language is None else find_code(language, known)
        if target in known or (not known and base_code(target) == base_code(own)):
            return target
        what = f"this model translates to {', '.join(known or (own,))}, not to {target}"
        advice = "choose one of these" if known else "leave it out"
        raise ConfigError("ENGINE", "--to", what, advice)

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order, lazily."""
        job = _TranslationJob(self, options or self.options)
        yield from job.translate(lines)
        job.long.warn("split at sentence ends, or clauses or words where there are none")

    def sentence(self, line: str, options: EngineOptions | None = None) -> Sentence:
        """A line in ids, as it is searched.

        Raises:
            DataError: it is blank, or too long for the model.
        """
        options = options or self.options
        job = _TranslationJob(self, replace(options, search={**options.search, **ONE_SEARCH}))
        sentences = job.window([line]).sentences
        if not sentences:
            what = "there is nothing in it to translate"
            raise DataError("LINE-BLANK", "the source", what, "give it some text")
        if job.long.count:
            what = f"more than the {job.long.room} pieces that the model has room for"
            raise DataError("LINE-LONG", "the source", what, "give one sentence at a time")
        return sentences[0]

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target; long sides are cut, with a warning."""
        room = self.profile.longest - 1 - len(self.vocabulary.languages[:1])
        long = _LongLines(room, self.options.strict)
        first = 1
        for window in growing_windows(pairs, low_latency=self.options.low_latency):
            yield from self._score(window, long, first)
            first += len(window)
        long.warn("cut")

    def _score(self, window: Sequence[Pair], long: _LongLines, first: int) -> list[Score]:
        for pair in window:
            if pair.source is None or pair.target is None:
                advice = "give pairs of a source and a target"
                raise DataError("SCORE-SIDE", pair.origin, "a side is missing", advice)
        sources = self.vocabulary.encode_source([cast(str, pair.source) for pair in window])
        targets = self.vocabulary.encode_target([cast(str, pair.target) for pair in window])
        ids = []
        for line, (pair, source, target) in enumerate(zip(window, sources, targets, strict=True)):
            long.check(first + line, max(len(source), len(target)))
            front: tuple[int, ...] = ()
            if self.vocabulary.languages:
                language = pair.target_language or self.options.target_language
                front = self.vocabulary.front(self.target(language))
            ids.append(([*front, *source[: long.room], END], [*target[: long.room], END]))
        scores = []
        for (_, target), log_probs in zip(ids, self.searcher.force(ids), strict=True):
            total = math.fsum(log_probs)
            if math.isnan(total):
                raise diverged()
            pieces = tuple(self.vocabulary.pieces_target(target))
            scores.append(Score(total, len(log_probs), tuple(log_probs), pieces))
        return scores


def diverged() -> ModelError:
    """The error of a model whose probabilities are not numbers."""
    what = "the model's probabilities are not numbers"
    advice = "its training diverged; choose another checkpoint with --checkpoint"
    return ModelError("MODEL-NAN", "the model", what, advice)


class _LongLines(LineWarnings):
    """Lines of more than `room` pieces, which do not fit the model."""

    def __init__(self, room: int, strict: bool) -> None:
        super().__init__()
        self.room, self.strict = room, strict

    def check(self, line: int, pieces: int) -> bool:
        """Whether this line, counted from 1, is too long.

        Raises:
            DataError: it is, and the options are strict.
        """
        if pieces <= self.room:
            return False
        if self.strict:
            what = f"{pieces} pieces, the model has room for {self.room}"
            raise DataError("LINE-LONG", f"line {line}", what, "shorten it, or leave out --strict")
        self.add(line)
        return True

    def warn(self, action: str) -> None:
        """Warn once of all these lines, and of the action that was taken."""
        if self.count:
            what = f"{self.count} lines of more than {self.room} pieces were {action}: {self}"
            console.print_line(f"mt: warning[LINE-LONG] {what}")


@dataclass(frozen=True)
class _Window:
    """Some lines that are translated together."""

    count: int
    rows: list[int]
    """The line of each sentence."""
    sentences: list[Sentence]
    capitals: set[int]
    """Lines in capitals, whose sentences are in the usual spelling."""


class _TranslationJob:
    """One call of `translate`."""

    def __init__(self, engine: TextTranslator, options: EngineOptions) -> None:
        self.engine, self.vocabulary = engine, engine.vocabulary
        target = engine.target(options.target_language)
        self.language, self.front = target, self.vocabulary.front(target)
        self.space = sentence_separator(target)
        self.has_spaces = base_code(target) not in SPACELESS | SPACELESS_WORDS
        self.options = replace(options, prefixes=None)  # the sentences contain them
        self.config = config = search_config(engine.profile.search, options.search)
        self.again = SecondSearch(
            engine.searcher, self.vocabulary, config, self.options, has_spaces=self.has_spaces
        )
        self.prefixes = None if options.prefixes is None else iter(options.prefixes)
        self.num_read = options.line_offset
        self.long = _LongLines(engine.profile.longest - 1 - len(self.front), options.strict)
        # A prefix may go beyond the first sentence, and is written as the user wants it.
        is_free = self.prefixes is None
        self.usual = engine.profile.usual if is_free and config.split_sentences else ANY_LENGTHS
        self.restores_case = is_free and config.restore_case
        self.keeps_untranslatable = is_free and config.keep_untranslatable

    def translate(self, lines: Iterable[str]) -> Iterator[Translation]:
        """The translations of lines, in order."""
        options, searcher = self.options, self.engine.searcher
        prefetch = 0 if options.line_buffered else searcher.prefetch_windows
        pending: deque[Iterator[Translation]] = deque()
        for read in growing_windows(lines, options.line_buffered, options.low_latency):
            window = self.window(read)
            self.num_read += len(read)
            results = searcher.search(window.sentences, self.config, options)
            pending.append(self._finish(window, results))
            while len(pending) > prefetch:
                yield from pending.popleft()
        while pending:
            yield from pending.popleft()
        if self.prefixes is not None and next(self.prefixes, None) is not None:
            what = f"there are more than the {self.num_read} lines"
            raise DataError("PREFIX-LINES", "the prefixes", what, "give one for each line")

    def _finish(
        self, window: _Window, searched: Iterator[list[Hypothesis]]
    ) -> Iterator[Translation]:
        """The translations of a window from those of its sentences; waits for the search."""
        parts: list[list[Translation]] = [[] for _ in range(window.count)]
        results, asked, rests = list(searched), list(window.sentences), dict[int, Rest]()
        self.again.separate_prefixes(asked, results)
        if self.keeps_untranslatable:
            rests = self.again.without_untranslatable(asked, results)
        if self.config.retry_repetition:
            self.again.without_repetition(asked, results)
        tokens = [each.tokens for hypotheses in results for each in hypotheses]
        texts = iter(self.vocabulary.decode_target(tokens))  # one call costs less than many
        every = zip(window.rows, asked, results, strict=True)
        for place, (row, sentence, hypotheses) in enumerate(every):
            named = zip(hypotheses, islice(texts, len(hypotheses)), strict=True)
            pieces = tuple(self.vocabulary.pieces_source(sentence.source[sentence.front : -1]))
            n_best = [
                to_translation(self.vocabulary, pieces, each, text, sentence)
                for each, text in named
            ]
            if place in rests:
                put_back = zip(n_best, hypotheses, strict=True)
                n_best = [self.again.put_back(*each, rests[place]) for each in put_back]
            if not self.options.alignments:  # a second search has them
                n_best = [_without_alignment(each) for each in n_best]
            alternatives = tuple(n_best) if self.options.n_best > 1 else ()
            parts[row].append(replace(n_best[0], alternatives=alternatives))
        for row, each in enumerate(parts):
            whole = each[0] if len(each) == 1 else merge_translations(each, self.space)
            yield in_capitals(whole, self.language) if row in window.capitals else whole

    def window(self, read: Sequence[str]) -> _Window:
        """The sentences of some lines."""
        rows = [row for row, line in enumerate(read) if not is_blank(line)]
        lines, encode = [read[row] for row in rows], self.vocabulary.encode_source
        if self.restores_case:
            lines = restore_case(lines, encode, self.engine.profile.languages.source)
        prefixes = self._prefixes(len(read))
        restored = [row for row, line in zip(rows, lines, strict=True) if line is not read[row]]
        capitals = {row for row in restored if is_capitals(read[row])}
        window = _Window(len(read), [], [], capitals)
        for row, line, ids in zip(rows, lines, encode(lines), strict=True):
            is_long = self.long.check(self.num_read + row + 1, len(ids))
            is_unusual = len(ids) > self.usual.shortest
            parts = self._split(line, ids) if is_long or is_unusual else [(line, ids)]
            for number, (text, part) in enumerate(each for each in parts if each[1]):
                prefix, ends_word = prefixes[row] if number == 0 else ([], False)
                sentence = self._sentence(part, prefix, self.num_read + row)
                window.rows.append(row)
                window.sentences.append(replace(sentence, prefix_ends_word=ends_word, text=text))
        return window

    def _sentence(self, ids: Sequence[int], prefix: Sequence[int], line: int) -> Sentence:
        config, positions = self.config, self.engine.profile.positions or 1 << 30
        room = int(config.max_length_ratio * len(ids)) + config.max_length_extra + 1
        length = min(max(room, len(prefix) + 2), positions)
        if len(prefix) >= length:
            what = f"a prefix of {len(prefix)} pieces leaves no room in {length}"
            raise DataError("PREFIX-LONG", f"prefix {line + 1}", what, "give a shorter one")
        return Sentence([*self.front, *ids, END], length, prefix, self.options.seed + line)

    def _prefixes(self, count: int) -> list[tuple[list[int], bool]]:
        """The forced beginnings of the next `count` lines: ids, and whether they end a word.

        White space at the end is left out: it belongs to the piece of the next word, and a model
        never sees it alone.
        """
        if self.prefixes is None:
            return [([], False) for _ in range(count)]
        texts = [next(self.prefixes, None) for _ in range(count)]
        if None in texts:
            line = self.num_read + texts.index(None) + 1
            advice = "give one for each line; an empty one forces nothing"
            raise DataError("PREFIX-LINES", f"line {line}", "there is no prefix for it", advice)
        given = cast(list[str], texts)
        kept = ["" if is_blank(text) else text.rstrip(" \t") for text in given]
        ends_word = [
            self.has_spaces and bool(text) and text != line
            for text, line in zip(kept, given, strict=True)
        ]
        return list(zip(self.vocabulary.encode_target(kept), ends_word, strict=True))

    def _split(self, line: str, ids: list[int]) -> list[tuple[str, list[int]]]:
        """The parts of a line that fit, of as many sentences as fit and are usual."""
        encode, room = self.vocabulary.encode_source, self.long.room
        most = min(room, self.usual.several)
        sentences = split_sentences(line)
        if len(sentences) == 1 and len(ids) <= min(room, self.usual.sentence):
            return [(line, ids)]  # most lines of most corpora
        parts: list[str] = []
        length = math.inf  # of the last part, so that the first sentence begins one
        for sentence, encoded in zip(sentences, encode(sentences), strict=True):
            for text, pieces in self._fitting(sentence, len(encoded)):
                if length + pieces <= most:
                    parts[-1] += text
                    length += pieces
                else:
                    parts.append(text)
                    length = pieces
        return [(text, part[:room]) for text, part in zip(parts, encode(parts), strict=True)]

    def _fitting(self, text: str, pieces: int) -> Iterator[tuple[str, int]]:
        """A sentence, halved until each part fits, and the number of pieces of each part.

        Only a word that does not fit is a part that is too long.
        """
        parts = [text]
        if pieces > self.long.room:
            parts = halve(text)
        elif pieces > self.usual.sentence:
            parts = halve(text, at_words=False)
        if len(parts) == 1:
            yield text, pieces
            return
        for part, ids in zip(parts, self.vocabulary.encode_source(parts), strict=True):
            yield from self._fitting(part, len(ids))


def to_translation(
    vocabulary: Vocabulary, pieces: tuple[str, ...], hypothesis: Hypothesis, text: str,
    sentence: Sentence,
) -> Translation:  # fmt: skip
    """One hypothesis with its text in one line; only the source `pieces` are in the alignment."""
    columns = slice(sentence.front, sentence.front + len(pieces))
    rows = hypothesis.alignment and hypothesis.alignment[:-1]
    return Translation(
        text=one_line(text),
        score=hypothesis.score,
        tokens=tuple(vocabulary.pieces_target(hypothesis.tokens[:-1])),
        log_probabilities=tuple(hypothesis.log_probabilities),
        source_tokens=pieces,
        alignment=None if rows is None else tuple(tuple(row[columns]) for row in rows),
        prefix=vocabulary.decode_target([sentence.prefix])[0] if sentence.prefix else "",
        truncated=_is_truncated(hypothesis, sentence),
    )


def _is_truncated(hypothesis: Hypothesis, sentence: Sentence) -> bool:
    """Whether the length limit ended a hypothesis, where it would rather have gone on.

    At the limit an end is forced, and its probability is the model's all the same.
    """
    at_limit = len(hypothesis.tokens) >= sentence.max_length
    return at_limit and any(value < LIKELY_END for value in hypothesis.log_probabilities[-1:])


def search_config(own: SearchConfig, settings: Any) -> SearchConfig:
    """The recipe's search with `settings` replaced; of another kind, with its own defaults.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    kept = own.model_dump(mode="json")
    if settings.get("kind", own.kind) != own.kind:
        kept = {key: kept[key] for key in SearchConfig.model_fields}
    places: dict[Location, str] = {
        ("search", key): f"--set search.{key}={value}" for key, value in settings.items()
    }
    places["search",] = places.get(("search", "kind"), "--set")
    trust_kinds(dotted_kinds(dict(settings)))  # the caller has named them
    schema = Annotated[SearchConfig, Plugin("search")]
    config = validate_section("search", schema, {**kept, **settings}, places, "--set")
    return cast(SearchConfig, config)


def batch_token_budget(
    config: SearchConfig, options: EngineOptions, tokens: int = BATCH_TOKENS
) -> int:
    """Padded source positions of a batch: `batch_tokens`, else `tokens`, by beams or samples."""
    return (options.batch_tokens or tokens) // max(options.n_best, getattr(config, "beams", 1))


def _without_alignment(one: Translation) -> Translation:
    return one if one.alignment is None else replace(one, alignment=None)


def in_capitals(translation: Translation, language: str) -> Translation:
    """A translation with its text, and that of its alternatives, in capitals."""
    return replace(
        translation,
        text=capitalise(translation.text, language),
        alternatives=tuple(in_capitals(each, language) for each in translation.alternatives),
    )


def merge_translations(parts: Sequence[Translation], space: str) -> Translation:
    """The translation of a line from those of its parts; the scores are added."""
    ranked = zip(*(part.alternatives for part in parts), strict=False)
    return Translation(
        text=space.join(part.text for part in parts),
        score=math.fsum(part.score for part in parts),
        tokens=tuple(token for part in parts for token in part.tokens),
        log_probabilities=tuple(value for part in parts for value in part.log_probabilities),
        alternatives=tuple(merge_translations(each, space) for each in ranked),
        source_tokens=tuple(token for part in parts for token in part.source_tokens),
        alignment=_merge_alignments(parts),
        prefix=parts[0].prefix if parts else "",
        truncated=any(part.truncated for part in parts),
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
