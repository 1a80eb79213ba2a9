"""Catalogues of gettext: PO and MO files, through polib."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mt.config.schema import SourceConfig
from mt.config.section import InputFile
from mt.data.languages import same_language
from mt.data.pairs import Pair, Pairs
from mt.data.text import join_lines
from mt.errors import ConfigError, DataError, printable
from mt.runtime import text_files

_MO_MAGIC = (b"\xde\x12\x04\x95", b"\x95\x04\x12\xde")


class Config(SourceConfig):
    """One PO or MO file; the languages of messages and translations are its own."""

    kind: Literal["po"] = "po"
    file: InputFile
    """The catalogue; what is not translated, fuzzy or obsolete is skipped. Where its header names
    the source language of the direction, messages are the target."""


def read(config: Config) -> Iterable[Pair]:
    """Read the translated messages; of a plural the singular and the last form.

    Raises:
        ConfigError: polib is not installed.
        DataError: while iterating: not a catalogue, or of another language.
    """
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    direction = config.direction
    catalogue = _open(Path(config.file))
    language = str(catalogue.metadata.get("Language", "")).strip()
    turned = bool(language) and not same_language(direction.target, language)
    if turned and not same_language(direction.source, language):
        what = f"a catalogue of translations to {printable(language, 30)}"
        raise DataError("DATA-LANGUAGES", config.file, what, "see languages in the recipe")
    count = 0
    for entry in catalogue:
        if getattr(entry, "obsolete", False) or getattr(entry, "fuzzy", False):  # not in MO
            continue
        for message, translation in _texts(entry):
            if message and translation:
                count += 1
                texts = [join_lines(text) for text in (message, translation)]
                source, target = reversed(texts) if turned else texts
                origin = f"{config.file}:{count}"
                yield Pair(source, target, direction.source, direction.target, origin)


def _texts(entry: Any) -> Iterator[tuple[str, str]]:
    """Yield the message of an entry and its translation; of a plural both."""
    if not entry.msgid_plural:
        yield entry.msgid, entry.msgstr
        return
    forms = [entry.msgstr_plural[key] for key in sorted(entry.msgstr_plural)]
    if len(forms) > 1:
        yield entry.msgid, forms[0]
    if forms:
        yield entry.msgid_plural, forms[-1]


def _open(path: Path) -> Any:
    try:
        import polib
    except ImportError:
        what = "polib, which reads PO and MO files, is not installed"
        raise ConfigError("PO", path, what, "pip install 'mt[data]'") from None
    text_files.open_bytes(path).close()  # raises when the path is wrong
    try:
        with open(path, "rb") as stream:
            is_binary = stream.read(4) in _MO_MAGIC
        return (polib.mofile if is_binary else polib.pofile)(str(path))
    except (OSError, ValueError, LookupError, struct.error, AttributeError, TypeError) as error:
        what = f"not a catalogue of gettext ({printable(error, 120)})"
        raise DataError("DATA-PO", path, what, "see whether msgfmt -c accepts it") from None
