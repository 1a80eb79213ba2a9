"""Translation memories: languages, inline tags, and what is refused."""

from __future__ import annotations

import gzip

import pytest
from source_sections import pairs, refused

HEAD = (
    '<?xml version="1.0"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4"><header/><body>'
)


def unit(**segments):
    variants = (
        f'<tuv xml:lang="{code.replace("_", "-")}"><prop type="x">no</prop><seg>{text}</seg></tuv>'
        for code, text in segments.items()
    )
    return f"<tu><note>no</note>{''.join(variants)}</tu>"


def memory(folder, *units, name="a.tmx"):
    (folder / name).write_text(f"{HEAD}{''.join(units)}</body></tmx>", encoding="utf-8")
    return folder / name


def read(folder, **section):
    return pairs(folder, kind="tmx", file="a.tmx", **section)


def test_units_with_both_languages_are_read_in_the_direction_of_the_recipe(tmp_path):
    memory(
        tmp_path, unit(en="A", de="B"), unit(de="D", en="C"), unit(en="E"), unit(fr="F", de="G"),
        unit(en="", de="H"),
    )  # fmt: skip
    assert read(tmp_path) == [("A", "B"), ("C", "D"), ("", "H")]
    turned = {"source": "de", "target": "fr"}
    assert read(tmp_path, languages=turned) == [("G", "F")]


def test_the_nearest_variant_of_a_language_is_taken(tmp_path):
    memory(tmp_path, unit(en_US="A", de_AT="B", de="C"), unit(EN_GB="D", de_DE="E"))
    assert read(tmp_path) == [("A", "C"), ("D", "E")]


def test_inline_tags_are_dropped_with_their_codes_and_text_stays(tmp_path):
    source = 'A <bpt i="1">&lt;b&gt;</bpt><hi type="x">big</hi><ept i="1">&lt;/b&gt;</ept> h<ph/>at'
    memory(tmp_path, unit(en=source, de="Ein <it pos='begin'>\\b</it>Hut\n &amp; mehr"))
    assert read(tmp_path) == [("A big hat", "Ein Hut  & mehr")]


def test_a_compressed_memory_is_read(tmp_path):
    path = memory(tmp_path, unit(en="A", de="B"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(tmp_path) == [("A", "B")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (unit(fr="A", it="B"), "no unit has en and de; the languages are: fr, it"),
        ("", "the languages are: none"), ("<tu><tuv></tu>", "a.tmx:3: not well-formed XML"),
        (unit(en="&x;", de="B"), "an entity that is not defined in XML: &x;"),
    ],
)  # fmt: skip
def test_what_is_no_memory_of_these_languages_is_refused(tmp_path, content, message):
    memory(tmp_path, content)
    assert message in refused(tmp_path, kind="tmx", file="a.tmx")
