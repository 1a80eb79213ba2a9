"""`mt init`."""

from prepared_corpora import GOOD, write_pairs

from mt.cli import main


def test_it_writes_a_recipe_that_can_be_prepared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    write_pairs(tmp_path, "all", GOOD)
    assert main.run(["init", "all.en", "all.de", "--minutes", "3"]) == 0
    out, err = capsys.readouterr()
    assert "mt train en-de/en-de.yaml" in out
    assert "reading the pairs" in err
    assert main.run(["prepare", "en-de/en-de.yaml"]) == 0
    assert main.run(["init", "all.en", "all.de"]) == 2
    assert "OUTPUT-EXISTS" in capsys.readouterr().err
