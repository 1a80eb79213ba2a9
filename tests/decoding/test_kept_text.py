"""What is taken out of a source, and where it is put back into a translation."""

from __future__ import annotations

import pytest
from native_engine import ONE, native

from mt.data.untranslatable import Unit, find_units
from mt.decoding.kept_text import is_unknown, put_back, take_out, unknown_words
from mt.decoding.types import Translation


@pytest.mark.parametrize(
    ("text", "rest", "kept"),
    [
        ("See {0}, please.", "See, please.", [("{0}", 3, False, False)]),
        ("{0} dogs", "dogs", [("{0}", 0, False, False)]),
        ('Say "{0}" now', "Say now", [('"{0}"', 3, False, False)]),
        ("<b>Big</b> dogs", "Big dogs", [("<b>", 0, False, True), ("</b>", 3, True, False)]),
        ("看https://x.org/网站。", "看网站。", [("https://x.org/", 1, False, False)]),
        ("a {0} {1} b", "a b", [("{0}", 1, False, False), ("{1}", 1, False, False)]),
        ("{0}!", "", [("{0}!", 0, False, False)]),
        ("a <b\r\x1bc>\u2028b", "a b", [("<b  c>", 1, False, False)]),
        ("\x07{0}\r.\x1b", "", [("{0} .", 0, False, False)]),
    ],
)
def test_parts_are_taken_out_with_the_spaces_that_they_need(text, rest, kept):
    found = take_out(text, find_units(text))
    assert (found.text, [tuple(each[:4]) for each in found.kept]) == (rest, kept)


def translated(source: str, tokens: str, links: str = "") -> Translation:
    """A translation whose token t has all its attention at the source piece that link t names."""
    columns = len(source.split())
    rows = tuple(tuple(float(i == int(link)) for i in range(columns)) for link in links)
    words = tokens.split()
    return Translation(
        text="".join(words).replace("▁", " ").strip(),
        tokens=tuple(words),
        log_probabilities=(-1.0,) * (len(words) + 1),
        source_tokens=tuple(source.split()),
        alignment=rows or None,
    )


def restored(text: str, translation: Translation, *, has_spaces: bool = True) -> Translation:
    rest = take_out(text, find_units(text))
    pieces = "".join(translation.source_tokens).replace("▁", " ").strip()
    assert pieces.replace(" ", "") == rest.text.replace(" ", "")

    def before(place: int) -> int:
        letters, count = len(rest.text[:place].replace(" ", "")), 0
        for piece in translation.source_tokens:
            letters -= len(piece.replace("▁", ""))
            count += letters >= 0
        return count

    columns = [before(kept.place) for kept in rest.kept]
    return put_back(
        translation, rest, columns,
        lambda count: "".join(translation.tokens[:count]).replace("▁", " ").strip(),
        has_spaces=has_spaces,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "source", "tokens", "links", "expected"),
    [
        ("I see {0} here", "▁I ▁see ▁here", "▁Hier ▁sehe ▁ich", "210", "Hier sehe ich {0}"),
        ("I see {0} here", "▁I ▁see ▁here", "▁ich ▁se he ▁hier", "0112", "ich sehe {0} hier"),
        ("I see {0} here", "▁I ▁see ▁here", "▁ich ▁se he ▁hier", "", "ich sehe {0} hier"),
        ("{0} I see.", "▁I ▁see .", "▁ich ▁sehe .", "012", "{0} ich sehe."),
        ("I see {0}.", "▁I ▁see .", "▁ich ▁sehe .", "000", "ich sehe {0}."),
        ("I see. {0}", "▁I ▁see .", "▁ich ▁sehe .", "000", "ich sehe. {0}"),
        ("<b>I</b> see", "▁I ▁see", "▁ich ▁sehe", "01", "<b>ich</b> sehe"),
        ("I {0} {1} see", "▁I ▁see", "▁ich ▁sehe", "01", "ich {0} {1} sehe"),
        (
            "I <b>see</b> here.",
            "▁I ▁see ▁here .",
            "▁hier ▁sehe ▁ich .",
            "2103",
            "hier <b>sehe</b> ich.",
        ),
        (
            "I <b>see you</b> here.",
            "▁I ▁see ▁you ▁here .",
            "▁ich ▁dich ▁hier .",
            "0234",
            "ich <b>dich</b> hier.",
        ),
        ("<a>I</a> see", "▁I ▁see", "▁da ▁sehe ▁ich", "110", "da sehe <a>ich</a>"),
        ("<p><i>I</i> see</p>", "▁I ▁see", "▁sehe ▁ich", "10", "<p>sehe <i>ich</i></p>"),
        ("I <b>see</b> here", "▁I ▁see ▁here", "▁ich ▁bin ▁hier", "002", "<b></b> ich bin hier"),
        (
            "I (with {0}) see",
            "▁I ▁( with ) ▁see",
            "▁ich ▁( mit ) ▁sehe",
            "01234",
            "ich (mit {0}) sehe",
        ),
        ("<p>I <b>see.</b></p>", "▁I ▁see .", "▁ich ▁sehe .", "012", "<p>ich <b>sehe.</b></p>"),
        ("I {0}{1} see", "▁I ▁see", "▁ich ▁sehe", "01", "ich {0}{1} sehe"),
        ("I, {0}, see", "▁I , , ▁see", "▁ich , , ▁sehe", "0123", "ich, {0}, sehe"),
    ],
)
def test_a_part_stands_where_the_words_around_it_meet(text, source, tokens, links, expected):
    found = restored(text, translated(source, tokens, links))
    assert found.text == expected


def test_tokens_and_alignment_have_the_part_as_one_piece():
    text = "I see {0} here {1}"
    found = restored(text, translated("▁I ▁see ▁here", "▁hier ▁sehe ▁ich", "210"))
    assert found.source_tokens == ("▁I", "▁see", "▁{0}", "▁here", "▁{1}")
    assert len(found.tokens) == 5
    assert len(found.log_probabilities) == 6
    assert found.alignment is not None
    for token, row in zip(found.tokens, found.alignment, strict=True):
        column = row.index(1.0)
        assert sum(row) == 1
        if token.startswith("▁{"):
            assert found.source_tokens[column] == token
        else:
            assert found.source_tokens[column] in ("▁I", "▁see", "▁here")


def test_no_space_is_written_where_words_have_none():
    found = restored(
        "I see {0} here", translated("▁I ▁see ▁here", "我 看 这里", "012"), has_spaces=False
    )
    assert found.text == "我看{0}这里"


def test_a_piece_of_a_byte_or_of_nothing_is_unknown():
    assert [is_unknown(piece) for piece in ("<unk>", "<0x0A>", "▁", "a", "<0xA>")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_unknown_words_are_whole_and_no_punctuation(run):
    vocabulary = native.open(run, ONE).vocabulary
    text = "dogs Ωμέγα Äpfel e\u0301 “play” \u2764\ufe0f! \U0001f469\u200d\U0001f4bb 5€"
    (unit,) = unknown_words("the NASA dogs", vocabulary)
    assert unit == Unit(4, 8)
    found = [text[unit.start : unit.stop] for unit in unknown_words(text, vocabulary)]
    assert [each for each in found if each not in ("5", "Äpfel", "e\u0301")] == [
        "Ωμέγα", "\u2764\ufe0f", "\U0001f469\u200d\U0001f4bb", "€",
    ]  # fmt: skip
