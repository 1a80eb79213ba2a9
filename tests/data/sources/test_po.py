"""Catalogues of gettext: what is translated, plurals, direction, and what is refused."""

from __future__ import annotations

import polib
import pytest
from source_sections import pairs, refused

PO = r"""
# a comment
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Language: LANGUAGE\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

#: a.c:1
msgctxt "menu"
msgid "Open\n"
"the file"
msgstr "Öffne\n"
"die Datei"

#, fuzzy
msgid "fuzzy"
msgstr "unscharf"

msgid "missing"
msgstr ""

msgid "%d house"
msgid_plural "%d houses"
msgstr[0] "%d Haus"
msgstr[1] "%d Häuser"

#~ msgid "old"
#~ msgstr "alt"
"""
PAIRS = [
    ("Open the file", "Öffne die Datei"), ("%d house", "%d Haus"), ("%d houses", "%d Häuser")
]  # fmt: skip


def read(folder, language, **section):
    (folder / "a.po").write_text(PO.replace("LANGUAGE", language), encoding="utf-8")
    return pairs(folder, kind="po", file="a.po", **section)


@pytest.mark.parametrize("language", ["de", "de_DE", "deu", ""])
def test_translated_messages_and_plurals_are_read(tmp_path, language):
    assert read(tmp_path, language) == PAIRS


def test_a_catalogue_of_the_source_language_is_turned(tmp_path):
    turned = {"source": "de", "target": "en"}
    assert read(tmp_path, "de", languages=turned) == [(b, a) for a, b in PAIRS]


def test_a_binary_catalogue_is_read(tmp_path):
    read(tmp_path, "de")
    polib.pofile(str(tmp_path / "a.po")).save_as_mofile(str(tmp_path / "a.mo"))
    assert sorted(pairs(tmp_path, kind="po", file="a.mo")) == sorted(PAIRS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is no catalogue\n", "a.po: not a catalogue"), (b"\xff\xfe\x00", "not a catalogue"),
        (b"\xde\x12\x04\x95\x00", "not a catalogue"),
        (PO.replace("LANGUAGE", "fr").encode(), "a catalogue of translations to fr"),
    ],
)  # fmt: skip
def test_what_is_no_catalogue_is_refused(tmp_path, content, message):
    (tmp_path / "a.po").write_bytes(content)
    assert message in refused(tmp_path, kind="po", file="a.po")
