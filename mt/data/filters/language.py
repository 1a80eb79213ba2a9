"""Text in another language, by py3langid (extra `data`) or a fastText model of the user's.

mozilla/translations identifies both sides by a fastText model, OpusFilter by several programs.
A side is dropped when another language is likelier by far than its own. Short lines are kept, as no
program identifies them well, and so are languages that hardly differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import langcodes
from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH, InputFile
from mt.data.cleaning import Context, EachSide, Filter, Judge
from mt.data.language_id import langid
from mt.data.scripts import count_letters, plain_language
from mt.errors import DataError, MachineError
from mt.runtime import text_files

ALIKE = 15
"""Distance of CLDR below which languages are not told apart, such as Norwegian and Danish (12)."""
Identify = Callable[[str, str], tuple[str, float]]
"""Of a text and its expected language: the likeliest one, and the probability of the expected."""


class Config(FilterConfig):
    """How sure it must be."""

    kind: Literal["language"] = "language"
    least: float = Field(0.05, ge=0, le=1)
    """Least probability of the expected language where another is likelier."""
    spared: int = Field(20, ge=0, le=MAX_LENGTH)
    """A side of fewer letters is kept."""
    model: InputFile | None = None
    """A fastText model, such as lid.176.ftz; py3langid identifies when it is left out."""

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter, which spares languages that the identifier does not know.

    Raises:
        MachineError: the identifier is not installed.
        DataError: the model cannot be read.
    """
    where = f"data.clean: {config.label}"
    known, identify = _fasttext(config.model, where) if config.model else _langid(where)
    judges: list[Judge | None] = []
    for code in context.languages:
        expected = plain_language(code)
        if expected not in known:
            context.note(f"does not know {code}")
            judges.append(None)
        else:
            judges.append(partial(_judge, config, identify, expected))
    return EachSide(*judges)


def _judge(config: Config, identify: Identify, expected: str, text: str) -> str | None:
    if len(text) < config.spared or count_letters(text) < config.spared:
        return None
    best, probability = identify(text, expected)
    if best == expected or probability >= config.least or _are_alike(best, expected):
        return None
    return best


@functools.cache
def _are_alike(language: str, other: str) -> bool:
    """Whether two languages hardly differ, by the data of Unicode's CLDR."""
    distance = langcodes.tag_distance
    return min(distance(language, other), distance(other, language)) < ALIKE


def _langid(where: str) -> tuple[frozenset[str], Identify]:
    try:
        return frozenset(langid().labels), _identify_by_langid
    except ImportError:
        what, advice = "py3langid is not installed", "pip install 'mt[data]'"
        raise MachineError("CLEAN-PACKAGE", where, what, advice) from None


def _identify_by_langid(text: str, expected: str) -> tuple[str, float]:
    identifier = langid()
    best, probability = identifier.classify(text)
    if best != expected:
        probability = dict(identifier.rank(text))[expected]
    return best, probability


def _fasttext(path: str, where: str) -> tuple[frozenset[str], Identify]:
    text_files.open_bytes(Path(path)).close()  # raises when the path is wrong
    try:
        labels = _fasttext_model(path).get_labels()
    except ImportError:
        what, advice = "fasttext is not installed", "pip install fasttext-predict"
        raise MachineError("CLEAN-PACKAGE", where, what, advice) from None
    except ValueError as error:
        what, advice = f"is no fastText model ({error})", "see data.clean: model"
        raise DataError("CLEAN-MODEL", path, what, advice) from None
    return frozenset(filter(None, map(_language_of, labels))), partial(_identify_by_model, path)


@functools.cache
def _fasttext_model(path: str) -> Any:
    import fasttext

    return fasttext.load_model(path)


def _identify_by_model(path: str, text: str, expected: str) -> tuple[str, float]:
    labels, probabilities = _fasttext_model(path).predict(text, k=5)
    languages = [_language_of(label) for label in labels]
    found = dict(zip(reversed(languages), reversed(probabilities), strict=True))
    return languages[0] or labels[0], float(found.get(expected, 0.0))


@functools.cache
def _language_of(label: str) -> str | None:
    """Return the code of a label: `de` of `__label__deu_Latn`."""
    return plain_language(label.removeprefix("__label__").replace("_", "-"))
