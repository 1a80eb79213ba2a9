"""Rule: text in another language."""

import sys
from types import SimpleNamespace

import pytest
from filter_checks import build, check

from mt.data.language_id import langid
from mt.errors import DataError, MachineError

ENGLISH = "The children were playing in the garden behind the old house."
GERMAN = "Die Kinder spielten im Garten hinter dem alten Haus."
FRENCH = "Les enfants jouaient dans le jardin derrière la vieille maison."


def test_other_languages_are_found_on_either_side_and_named():
    pairs = [(ENGLISH, GERMAN), (GERMAN, ENGLISH), (ENGLISH, FRENCH), (FRENCH, GERMAN)]
    assert check("language", *pairs) == [None, "de", "fr", "fr"]


def test_short_lines_are_kept():
    assert check("language", ("Bonjour !", "Merci bien.")) == [None]
    assert check("language", (ENGLISH, "Les enfants jouaient."), spared=5) == ["fr"]


def test_languages_that_hardly_differ_are_not_told_apart():
    danish = "Børnene legede i haven bag det gamle hus hele dagen."
    assert check("language", (danish, GERMAN), source="no") == [None]
    assert check("language", (danish, GERMAN), source="sv") == ["da"]


def test_codes_of_three_letters_and_with_a_region_are_understood():
    assert check("language", (ENGLISH, FRENCH), source="eng", target="de-CH") == ["fr"]


def test_a_language_that_it_does_not_know_is_spared_and_noted():
    notes = []
    assert check("language", (ENGLISH, FRENCH), target="xx", notes=notes) == [None]
    assert check("language", (FRENCH, FRENCH), target="xx") == ["fr"]
    assert ["xx" in note for note in notes] == [True]


def test_without_the_package_the_extra_is_named(monkeypatch):

    langid.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MachineError, match=r"py3langid is not installed\n.*mt\[data\]"):
        build("language")


class Model:
    """Stands for a fastText model, whose package is not among those of the tests."""

    def get_labels(self):
        return ["__label__eng_Latn", "__label__deu_Latn", "__label__fra_Latn"]

    def predict(self, text, k):
        best = "fra" if "enfants" in text else "deu" if "Kinder" in text else "eng"
        others = [code for code in ("eng", "deu", "fra") if code != best]
        return tuple(f"__label__{c}_Latn" for c in (best, *others)), [0.97, 0.02, 0.01]


def test_a_fasttext_model_identifies_by_its_own_labels(monkeypatch, tmp_path):
    path = tmp_path / "lid.bin"
    path.write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "fasttext", SimpleNamespace(load_model=lambda path: Model()))
    pairs = [(ENGLISH, GERMAN), (ENGLISH, FRENCH), (GERMAN, GERMAN)]
    assert check("language", *pairs, model=str(path)) == [None, "fr", "de"]
    assert check("language", *pairs, model=str(path), least=0.005) == [None, None, None]


def test_a_fasttext_model_that_is_missing_or_without_its_package_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        build("language", model=str(tmp_path / "none"))
    path = tmp_path / "other.bin"
    path.write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(MachineError, match="fasttext-predict"):
        build("language", model=str(path))
