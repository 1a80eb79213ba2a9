"""What a translation keeps as it is: addresses, placeholders, tags, bullets, names, numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

# An address has ASCII characters only: the Chinese that follows one without a space is no part.
_ADDRESS = re.compile(
    r"(?:https?://|ftp://|www\.)[!-~]+|[A-Za-z0-9.+_-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
)
_SCHEME = re.compile(r"^(?:https?://|ftp://)?(?:www\.)?")
_PLACEHOLDER = re.compile(
    r"\$?\{\{?\s?[\w.]{0,60}\s?\}?\}"
    r"|(?<![\d%])(?<!\d\s)%(?:\d+\$|\(\w+\))?[sdifuxc@](?!\w)"
    r"|</?(?:x|g|bx|ex|ph)\b[^<>]{0,80}>"
)
_SIGNS = re.compile(r"[{%<]")
_FIRST_SIGNS = re.compile(r"[{%<@#_/&\\\d]|www")
"""One of them is in all that is kept, but for bullets."""
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]{0,80}|\d{1,3}\s?/?)>")
_NAME = re.compile(r"(?<![\w@#])(?:[@#][^\W\d_]\w*|__\w+__|[^\W_]+_\w*[^\W_])(?!\w)")
"""`@name`, `#topic`, `some_name`, `__name__`."""
_BULLET = re.compile(r"\s*([-*•‣▪●○◦■➤►>]|#{1,6})(?=\s+\S)")
"""The mark of a list or a heading at the beginning of a line."""
_ITEM = re.compile(r"\s*(\(?(\d{1,2})[.)])(?=\s+\S)")
"""The number of an item in a list."""
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#\d{1,6});")
_PATH = re.compile(
    r"(?<!\w)(?:[A-Za-z]:\\|~?/[A-Za-z0-9_.-]{1,60}/)[A-Za-z0-9_./\\-]*[A-Za-z0-9_/\\]"
)
_NUMBER = re.compile(r"\d(?:[\d.,:'’\u00a0\u202f]*\d)?")
_GLUED = r"[^\W\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|-"
_GLUED_BEFORE, _GLUED_AFTER = (
    re.compile(rf"(?:{_GLUED}){{0,40}}\Z"),
    re.compile(rf"(?:{_GLUED}){{0,40}}"),
)
"""Letters, digits and hyphens of a word in a script with spaces, at most 40."""
_ENDS = ".,;:!?'\")]}>"
"""Marks that are no part of an address that they end."""
NUMERAL = re.compile("[〇零一二三四五六七八九十百千万萬亿億两兩半]")
"""A number in words of Chinese and Japanese."""
_FEWEST_DIGITS = 3
"""Of a number that is not written in words, zeros at its ends not counted."""


def addresses(text: str) -> list[str]:
    """Return internet and e-mail addresses, without scheme, case and the marks of the sentence."""
    found = _ADDRESS.findall(text) if _may_have_address(text) else []
    return [_SCHEME.sub("", address).rstrip(_ENDS + "/").lower() for address in found]


def _may_have_address(text: str) -> bool:
    return "." in text and ("//" in text or "www" in text or "@" in text)


def placeholders(text: str) -> list[str]:
    """Return the placeholders of software texts: `{0}`, `%s`, `${name}`, `<x/>`."""
    return _PLACEHOLDER.findall(text) if _SIGNS.search(text) else []


def tags(text: str) -> list[str]:
    """Return the tags of marked-up text, such as `<b>` and `</b>`."""
    return _TAG.findall(text) if "<" in text else []


class Unit(NamedTuple):
    """A part of a text that its translation keeps."""

    start: int
    stop: int
    digits: str = ""
    """Of a number, without zeros at the ends; a translation may write their signs otherwise."""


def find_units(text: str) -> list[Unit]:
    """Return what a translation of a text keeps, in its order; no two parts overlap.

    A placeholder or a number includes the letters around it, as in `{0}s` and `B12345`.
    """
    bullet = _BULLET.match(text)
    found = [] if bullet is None else [Unit(*bullet.span(1))]
    if not _FIRST_SIGNS.search(text):  # decides most texts at once
        return found
    if (item := _ITEM.match(text)) is not None:
        found.append(Unit(*item.span(1), ascii_digits(item[2])))
    found += [Unit(*span) for span in _spans(text)]
    for match in _NUMBER.finditer(text):
        digits = ascii_digits(match[0]).strip("0")
        if len(digits) >= _FEWEST_DIGITS:
            found.append(Unit(*_with_neighbours(text, *match.span()), digits))
    return join_units(found)


def join_units(found: Iterable[Unit]) -> list[Unit]:
    """Return parts in their order, those that overlap as one."""
    units: list[Unit] = []
    for unit in sorted(found, key=lambda unit: (unit.start, -unit.stop)):
        if not units or unit.start >= units[-1].stop:
            units.append(unit)
        elif unit.stop > units[-1].stop:
            units[-1] = Unit(units[-1].start, unit.stop)
    return units


def _spans(text: str) -> list[tuple[int, int]]:
    """Where addresses, placeholders, tags and names are."""
    spans = []
    if _may_have_address(text):
        for match in _ADDRESS.finditer(text):
            spans.append((match.start(), match.start() + len(match[0].rstrip(_ENDS))))
    if _SIGNS.search(text):
        spans += [match.span() for match in _TAG.finditer(text)]
        spans += [_with_neighbours(text, *match.span()) for match in _PLACEHOLDER.finditer(text)]
    if "_" in text or "@" in text or "#" in text:
        spans += [match.span() for match in _NAME.finditer(text)]
    for sign, pattern in (("&", _ENTITY), ("/", _PATH), ("\\", _PATH)):
        spans += [match.span() for match in pattern.finditer(text)] if sign in text else []
    return spans


def _with_neighbours(text: str, start: int, stop: int) -> tuple[int, int]:
    """Extend a part of a text over the letters around it; a tag has none."""
    if text[start] == "<":
        return start, stop
    before = _GLUED_BEFORE.search(text, max(0, start - 40), start)
    after = _GLUED_AFTER.match(text, stop)
    return (before.start() if before else start), (after.end() if after else stop)


def is_lost(text: str, unit: Unit, translation: str) -> bool:
    """Whether a translation of a text has not kept a part of it."""
    if unit.digits:
        return unit.digits not in ascii_digits(translation) and not NUMERAL.search(translation)
    return text[unit.start : unit.stop] not in translation


def ascii_digits(text: str) -> str:
    """Return the digits of a text, those of all scripts as those of ASCII."""
    return "".join(str(unicodedata.digit(c)) for c in text if c.isdecimal())
