"""Sentences whose translation is at fault are searched again, and which those are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from mt.config.schema import SearchConfig
from mt.data.text import one_line, repeats
from mt.data.untranslatable import Unit, find_units, is_lost, join_units
from mt.decoding.kept_text import (
    Rest,
    has_abbreviation,
    put_back,
    take_out,
    unknown_words,
)
from mt.decoding.types import EngineOptions, Hypothesis, Searcher, Sentence, Translation
from mt.errors import ConfigError
from mt.special_tokens import END

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

FEWEST_REPEATED = 4
"""What stands five times in a row has at least so many tokens that are there already."""
RETRIED_NGRAM = 3
"""Tokens that may not occur again when a sentence is searched again for its repetition."""
MOST_UNITS = 100
"""What has more parts to keep is no sentence."""


class SecondSearch:
    """Searches sentences again. Its methods replace what is new in the lists that they are given.

    Args:
        has_spaces: whether the target language separates words by spaces.
    """

    def __init__(
        self, searcher: Searcher, vocabulary: Vocabulary, config: SearchConfig,
        options: EngineOptions, *, has_spaces: bool,
    ) -> None:  # fmt: skip
        self.searcher, self.vocabulary, self.config = searcher, vocabulary, config
        self.options, self.has_spaces = options, has_spaces

    def separate_prefixes(self, sentences: list[Sentence], results: list[list[Hypothesis]]) -> None:
        """Force the space after a prefix that must end a word.

        That is where a hypothesis has gone on within the last word of the prefix.
        """
        decode, encode = self.vocabulary.decode_target, self.vocabulary.encode_target
        places = list[int]()
        for place, sentence in enumerate(sentences):
            if not sentence.prefix_ends_word:
                continue
            prefix, *texts = decode([sentence.prefix, *(each.tokens for each in results[place])])
            if all(text[len(prefix) :][:1] in ("", " ") for text in texts):
                continue
            longer = encode([f"{prefix} "])[0]
            if len(longer) < sentence.max_length:
                places.append(place)
                sentences[place] = replace(sentence, prefix=longer)
        self._search(self.config, places, sentences, results)

    def without_repetition(
        self, sentences: Sequence[Sentence], results: list[list[Hypothesis]]
    ) -> None:
        """Forbid repeated n-grams where a translation is a loop."""
        if getattr(self.config, "no_repeat_ngram", 1):  # there is no such setting, or it is set
            return
        places = []
        for place, (sentence, (best, *_)) in enumerate(zip(sentences, results, strict=True)):
            if len(best.tokens) - len(set(best.tokens)) < FEWEST_REPEATED:  # decides most at once
                continue
            (text,) = self.vocabulary.decode_target([best.tokens])
            (source,) = self.vocabulary.source.decode([sentence.source[sentence.front : -1]])
            if repeats(text) and not repeats(source):
                places.append(place)
        config = self.config.model_copy(update={"no_repeat_ngram": RETRIED_NGRAM})
        self._search_aligned(config, places, sentences, results)

    def without_untranslatable(
        self, sentences: list[Sentence], results: list[list[Hypothesis]]
    ) -> dict[int, Rest]:
        """Leave out what a translation has lost; returns what is left out, by sentence."""
        rests = dict[int, Rest]()
        for place, (sentence, (best, *_)) in enumerate(zip(sentences, results, strict=True)):
            units = self._units(sentence)
            if 0 < len(units) <= MOST_UNITS:
                (text,) = self.vocabulary.decode_target([best.tokens])
                lost = {unit for unit in units if is_lost(sentence.text, unit, text)}
                # A number that is not lost has a part in the grammar.
                out = [unit for unit in units if unit in lost or not unit.digits]
                if lost:
                    rests[place] = take_out(sentence.text, out)
        every = self.vocabulary.encode_source([rest.text for rest in rests.values()])
        for (place, rest), ids in zip(rests.items(), every, strict=True):
            old = sentences[place]
            source = [*old.source[: old.front], *ids, END]
            sentences[place] = replace(old, source=source, text=rest.text)
            if not rest.text:
                results[place] = [Hypothesis([END], 0.0, [0.0], [[0.0] * len(source)])]
        places = [place for place, rest in rests.items() if rest.text]
        self._search_aligned(self.config, places, sentences, results)
        return rests

    def put_back(self, translation: Translation, hypothesis: Hypothesis, rest: Rest) -> Translation:
        """Put what was left out into the translation that a hypothesis became."""
        before = self.vocabulary.encode_source([rest.text[: kept.place] for kept in rest.kept])
        longest = accumulate(map(len, before), max)
        columns = [min(length, len(translation.source_tokens)) for length in longest]

        def decode(count: int) -> str:
            return one_line(self.vocabulary.decode_target([hypothesis.tokens[:count]])[0])

        return put_back(translation, rest, columns, decode, has_spaces=self.has_spaces)

    def _units(self, sentence: Sentence) -> list[Unit]:
        """What the translation of a sentence must keep."""
        units = find_units(sentence.text)
        if self.vocabulary.kind == "whitespace":  # it has many unknown words
            return units
        if self.vocabulary.unknown_source_ids.isdisjoint(sentence.source) and not has_abbreviation(
            sentence.text
        ):
            return units
        return join_units([*units, *unknown_words(sentence.text, self.vocabulary)])

    def _search_aligned(
        self, config: SearchConfig, places: Sequence[int], sentences: Sequence[Sentence],
        results: list[list[Hypothesis]],
    ) -> None:  # fmt: skip
        """`_search` with alignments, which tell where to put something back, if there are any."""
        try:
            self._search(config, places, sentences, results, alignments=True)
        except ConfigError:  # the model has no attention
            self._search(config, places, sentences, results)

    def _search(
        self, config: SearchConfig, places: Sequence[int], sentences: Sequence[Sentence],
        results: list[list[Hypothesis]], *, alignments: bool = False,
    ) -> None:  # fmt: skip
        """Replace the results of the sentences at some places."""
        again = [sentences[place] for place in places]
        options = replace(self.options, alignments=alignments or self.options.alignments)
        found = self.searcher.search(again, config, options) if again else ()
        for place, hypotheses in zip(places, found, strict=True):
            results[place] = hypotheses
