"""The identifier of languages."""

from mt.data.language_id import langid


def test_it_identifies_and_knows_its_languages():
    assert langid().classify("Wo ist der nächste Bahnhof, bitte?")[0] == "de"
    assert {"en", "de", "zh"} <= set(langid().labels)
    assert langid() is langid()
