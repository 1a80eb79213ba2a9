"""Figures from a sample of pairs: languages, scripts, swapped sides, and what a vocabulary makes.

Bytes: a character that no piece of the vocabulary contains is spelled in the bytes of its UTF-8.
Fertility: pieces a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mt.config.recipe import Recipe
from mt.config.schema import Languages
from mt.data.language_id import langid
from mt.data.scripts import (
    count_letters,
    letters_of,
    plain_language,
    script_of,
    script_share,
    word_counter,
    writes_spaces,
)
from mt.errors import MtError, printable
from mt.special_tokens import FIRST_PIECE
from mt.vocabulary.learn import learn_vocabulary
from mt.vocabulary.vocabulary import BYTE, Tokenizer

IDENTIFIED = 2_000
"""Pairs whose languages are identified."""
LEAST_LETTERS, LEAST_OF_WORDS = 20, 6
"""In a text whose language can be identified: with spaces between words, and without."""
MOST_SHOWN = 20
"""Languages and characters that are listed."""
Texts = Sequence[str]


def describe_sample(recipe: Recipe, sample: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Describe a sample of the training pairs of a recipe."""
    texts = [[a for a, _ in sample], [b for _, b in sample]]
    codes = [recipe.languages.source, recipe.languages.target]
    return {
        "pairs": len(sample),
        "scripts": [_script_figures(side, code) for side, code in zip(texts, codes, strict=True)],
        "languages": _language_figures(sample[:: max(1, len(sample) // IDENTIFIED)], codes),
        "vocabulary": _vocabulary_figures(recipe, texts),
    }


def _script_figures(texts: Texts, code: str) -> dict[str, Any]:
    """Return the script that a language is written in, and its share of the letters."""
    script = script_of(code)
    letters = None if script is None else letters_of(script)
    if letters is None:
        return {"script": None, "share": None}
    shares = [script_share(text, letters) for text in texts if count_letters(text)]
    return {"script": script, "share": sum(shares) / len(shares) if shares else None}


def _language_figures(
    sample: Sequence[tuple[str, str]], codes: Sequence[str]
) -> dict[str, Any] | None:
    """Return the languages found on each side, and the swapped pairs; None: no identifier."""
    try:
        identifier = langid()
    except ImportError:
        return None
    expected = [plain_language(code) for code in codes]
    least = [LEAST_LETTERS if writes_spaces(code) else LEAST_OF_WORDS for code in codes]
    found = [Counter[str](), Counter[str]()]
    judged = swapped = 0
    for pair in sample:
        if any(count_letters(text) < few for text, few in zip(pair, least, strict=True)):
            continue
        judged += 1
        names = [identifier.classify(text)[0] for text in pair]
        for counter, name in zip(found, names, strict=True):
            counter[name] += 1
        swapped += names == expected[::-1] and expected[0] != expected[1]
    known = [code in identifier.labels for code in expected]
    return {
        "judged": judged, "swapped": swapped, "known": known,
        "found": [counter.most_common(MOST_SHOWN) for counter in found],
    }  # fmt: skip


def _vocabulary_figures(recipe: Recipe, texts: Sequence[Texts]) -> dict[str, Any]:
    """Return what a vocabulary that is learned from the sample makes of it."""
    languages = Languages(source=recipe.languages.source, target=recipe.languages.target)
    a, b = ([*filter(None, side)] for side in texts)
    try:
        vocabulary = learn_vocabulary(recipe.vocabulary, languages, a, b, not (a and b))
    except MtError as error:
        return {"problem": printable(error.problems[0][1])}
    limit = recipe.data.max_length
    texts = [vocabulary.normalise_source(texts[0]), texts[1]]  # as they are encoded
    ids = [vocabulary.encode_source(texts[0]), vocabulary.encode_target(texts[1])]
    too_long = sum(max(len(a), len(b)) >= limit for a, b in zip(*ids, strict=True))
    return {
        "size": vocabulary.size,
        "truncated": too_long,
        "sides": {
            "source": _side_figures(vocabulary.source, texts[0], ids[0], languages.source),
            "target": _side_figures(vocabulary.target, texts[1], ids[1], languages.target),
        },
    }


def _side_figures(
    tokenizer: Tokenizer, texts: Texts, ids: Sequence[Sequence[int]], code: str
) -> dict[str, Any]:
    """Return fertility, and the characters that the vocabulary spells in bytes."""
    words = sum(map(word_counter(code), texts))
    names = tokenizer.pieces(range(FIRST_PIECE, tokenizer.size))
    known = set("".join(name for name in names if not BYTE.fullmatch(name)))
    characters = Counter("".join(texts))
    spelled = Counter({c: n for c, n in characters.items() if c not in known and not c.isspace()})
    return {
        "fertility": sum(map(len, ids)) / max(1, words),
        "bytes": spelled.total() / max(1, characters.total()),
        "spelled": [(printable(c), n) for c, n in spelled.most_common(MOST_SHOWN)],
    }
