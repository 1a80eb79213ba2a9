"""Rule: text decoded with the wrong encoding."""

import sys

import pytest
from filter_checks import build, check

from mt.errors import MachineError

WORDS = ["Das ist schön für Übung", "Il a été là", "“quoted” – dash", "Привет мир", "你好世界"]


@pytest.mark.parametrize("text", WORDS)
def test_utf8_read_as_latin_is_found_and_its_repair_is_the_value(text):
    wrong = text.encode().decode("latin-1")
    assert check("mojibake", (wrong, "x"), ("x", wrong)) == [text, text]


@pytest.mark.parametrize("text", [*WORDS, "plain ascii", "naïve café — “ok” €5"])
def test_sound_text_is_kept(text):
    assert check("mojibake", (text, text)) == [None]


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MachineError, match=r"ftfy is not installed\n.*mt\[data\]"):
        build("mojibake")
