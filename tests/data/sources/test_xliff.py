"""XLIFF of both versions: direction, suggestions, inline tags, and what is refused."""

from __future__ import annotations

import pytest
from source_sections import pairs, refused

VERSION_1 = """<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">
<file original="a" source-language="{0}" target-language="{1}" datatype="plaintext"><body>
<trans-unit id="1"><source>A <g id="1">big</g> h<x id="2"/>at</source><target>B</target>
<alt-trans><source>no</source><target>no</target></alt-trans></trans-unit>
<group><trans-unit id="2"><source>C<bpt id="1">&lt;b&gt;</bpt></source><target>D</target>
</trans-unit></group><trans-unit id="3"><source>E</source></trans-unit>
</body></file></xliff>"""
VERSION_2 = """<xliff version="2.0" srcLang="{0}" trgLang="{1}"
xmlns="urn:oasis:names:tc:xliff:document:2.0"><file id="f"><unit id="1">
<notes><note>no</note></notes>
<segment><source>A <pc id="1">big</pc> h<ph id="2"/>at</source><target>B</target></segment>
<ignorable><source> </source></ignorable>
<segment><source>C<sc id="3"/></source><target>D</target></segment>
<segment><source>E</source></segment></unit></file></xliff>"""
PAIRS = [("A big hat", "B"), ("C", "D")]

each_version = pytest.mark.parametrize("text", [VERSION_1, VERSION_2], ids=["1.2", "2"])


def read(folder, text, **section):
    (folder / "a.xlf").write_text(text, encoding="utf-8")
    return pairs(folder, kind="xliff", file="a.xlf", **section)


@each_version
def test_translated_units_are_read_without_suggestions_and_tags(tmp_path, text):
    assert read(tmp_path, text.format("en-US", "deu")) == PAIRS


@each_version
def test_a_file_of_the_opposite_direction_is_turned(tmp_path, text):
    assert read(tmp_path, text.format("de", "en")) == [(b, a) for a, b in PAIRS]


def test_only_the_files_of_the_direction_are_read(tmp_path):
    files = [VERSION_1.format(*codes).splitlines()[1:] for codes in (("en", "fr"), ("en", "de"))]
    body = "\n".join("\n".join(lines).replace("</xliff>", "") for lines in files)
    assert read(tmp_path, f'<xliff version="1.2">{body}</xliff>') == PAIRS


@each_version
def test_other_languages_are_listed(tmp_path, text):
    (tmp_path / "a.xlf").write_text(text.format("fr", "it"), encoding="utf-8")
    message = refused(tmp_path, kind="xliff", file="a.xlf")
    assert "no unit has en and de; the languages are: fr, it" in message


def test_what_is_not_well_formed_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.xlf").write_text("<xliff>\n<file>\n</xliff>")
    assert "a.xlf:3: not well-formed" in refused(tmp_path, kind="xliff", file="a.xlf")
