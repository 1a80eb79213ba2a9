"""Each fault of a translation is found, and a sound one has none."""

import pytest

from mt.evaluation.error_panel import find_errors

USUAL = ("This is a sentence of usual length.", "Das ist ein Satz von üblicher Länge.")


@pytest.mark.parametrize(
    ("kind", "source", "output"),
    [
        ("number lost", "It cost 4711 dollars in all.", "Es kostete 471 Dollar."),
        ("number lost", "In 1984 and in 1984.", "Im Jahr 1984."),
        ("address lost", "See https://a.org/x for it.", "Siehe dort."),
        ("address lost", "Write to me@b.com now.", "Schreib mir."),
        ("tag or placeholder lost", "Press <b>OK</b> now.", "Drücke OK</b> jetzt."),
        ("tag or placeholder lost", "Hello {name}, hi!", "Hallo, hi!"),
        ("tag or placeholder lost", "Hello %(name)s.", "Hallo."),
        ("bracket lost", "The end (of it).", "Das Ende davon."),
        ("emoji lost", "Nice ☃ day.", "Schöner Tag."),
        ("empty", "Not empty.", " "),
        ("copy of the source", "One two three four.", "One two three four."),
        ("repetition", "A man goes home.", "Ein Ein Ein Ein Ein Ein"),
        ("too short", "This is quite a long sentence, is it not?", "Ja."),
        ("too long", "This is quite a short one.", "Das " + "hier und da und dort " * 6),
    ],
)
def test_each_fault_is_found(kind, source, output):
    sources, outputs = [[USUAL[side]] * 9 + [(source, output)[side]] for side in (0, 1)]
    found = find_errors(sources, outputs)
    assert found[kind] == [9]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        USUAL, ("", "x"), ("1,234 people", "1.234 Menschen"), ("5 men", "fünf Männer"),
        ("See https://a.org/x/.", "Siehe www.a.org/x!"), ("100 % sure", "sicher zu 100 %"),
        ("See [1] (here) {x}", "Siehe [1] (hier) {x}"), ("OK", "OK"),
        ("Ha ha ha ha ha ha", "Ha ha ha ha ha ha!"),
    ],
)  # fmt: skip
def test_a_sound_translation_has_none(source, output):
    assert find_errors([source], [output]) == {}
