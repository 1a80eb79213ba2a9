"""`mt doctor`."""

import sound_recipe

from mt.cli import main


def test_it_shows_facts_and_fails_by_what_a_recipe_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    assert main.run(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("mt ")
    assert main.run(["doctor", "recipe.yaml"]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    (tmp_path / "train.en").unlink()
    (tmp_path / "train.de").unlink()
    assert main.run(["doctor", "recipe.yaml"]) == 3
    out, err = capsys.readouterr()
    assert err.count("DATA-FILE") == 2
    assert "nothing is missing" not in out
