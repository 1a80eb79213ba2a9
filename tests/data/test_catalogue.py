"""The catalogue: offline, complete, and helpful about names."""

from __future__ import annotations

import pytest

from mt.config.schema import Languages
from mt.data import catalogue
from mt.errors import ConfigError


def to(source, target):
    return Languages(source=source, target=target)


def test_the_table_is_small_and_says_when_it_is_of():
    assert catalogue.TABLE.stat().st_size < 500_000
    assert len(catalogue.opus_corpora()) > 90_000
    assert "opustools" in catalogue.opus_date()
    assert "20" in catalogue.opus_date()


def test_each_corpus_has_a_version_two_languages_and_an_https_url():
    for each in catalogue.opus_corpora():
        assert all((each.name, each.version, each.source, each.target)), each
        assert each.url.startswith("https://object.pouta.csc.fi/OPUS-"), each
        assert each.url.endswith(".zip"), each


@pytest.mark.parametrize(
    ("source", "target"), [("de", "en"), ("en", "de"), ("deu", "en_GB"), ("de_DE", "eng_Latn")]
)
def test_a_corpus_is_found_by_any_usual_codes_in_any_order(source, target):
    found = catalogue.find_opus("Tatoeba", "latest", to(source, target))
    assert (found.source, found.target) == ("de", "en")
    assert found.pairs > 300_000
    assert found.url.endswith(f"/OPUS-Tatoeba/{found.version}/moses/de-en.txt.zip")


def test_an_older_version_is_taken_on_trust():
    found = catalogue.find_opus("tatoeba", "v2021-07-22", to("en", "de"))
    assert found.url.endswith("/OPUS-Tatoeba/v2021-07-22/moses/de-en.txt.zip")
    assert found.bytes is None


@pytest.mark.parametrize(
    ("find", "what"),
    [
        (lambda: catalogue.find_opus("Tatoba", "latest", to("de", "en")), "did you mean Tatoeba"),
        (lambda: catalogue.find_opus("Tatoeba", "latest", to("de", "aaa")), "it has"),
        (lambda: catalogue.find_test_set("wtm17", to("en", "de")), "did you mean wmt17"),
        (lambda: catalogue.find_test_set("wmt17", to("de", "fr")), "de-en"),
        (lambda: catalogue.list_corpora("de-en", "Tatoba"), "did you mean Tatoeba"),
        (lambda: catalogue.list_corpora("deen", None), "'deen' is not two language codes"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(find, what):
    with pytest.raises(ConfigError) as error:
        find()
    assert what in str(error.value)
    assert len(str(error.value).splitlines()) == 2


def test_a_test_set_keeps_its_direction():
    for source, target in (("en", "de"), ("deu", "eng")):
        _, pair = catalogue.find_test_set("wmt17", to(source, target))
        assert pair == {"en": "en-de", "deu": "de-en"}[source]


def test_a_listing_begins_with_the_largest():
    listed = catalogue.list_corpora("de-en", None)
    pairs = [each.pairs or 0 for each in listed]
    assert pairs == sorted(pairs, reverse=True)
    names = {each.name for each in listed}
    assert {"opus:Tatoeba", "sacrebleu:wmt17"} <= names
    assert {each.name for each in catalogue.list_corpora("en-de", None)} == names
    assert {each.name for each in catalogue.list_corpora("de-en", "WMT17")} >= {"sacrebleu:wmt17"}
    every = {each.name for each in catalogue.list_corpora(None, None)}
    assert names < every
