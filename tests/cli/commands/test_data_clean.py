"""`mt data clean`."""

from __future__ import annotations

import sound_recipe

from mt.cli import main


def test_it_writes_clean_text_and_prints_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    pairs = len(sound_recipe.DATA["train.en"].splitlines())
    with open("train.en", "a") as source, open("train.de", "a") as target:
        source.write("The <b>house</b> is big.\n")
        target.write("Das <b>Haus</b> ist groß.\n")
    arguments = ["recipe.yaml", "--to", "clean", "--keep-dropped", "dropped.tsv"]
    assert main.run(["data", "clean", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.split("\n")[1].split() == ["pairs", f"{pairs + 1}"]
    assert "markup" in out
    assert "cleaning by" in err
    assert len((tmp_path / "clean" / "train.de").read_text().splitlines()) == pairs
    assert "<b>house" in (tmp_path / "dropped.tsv").read_text()
    assert main.run(["data", "clean", "recipe.yaml", "--to", "clean"]) == 2
    assert "OUTPUT-EXISTS" in capsys.readouterr().err
    arguments = ["--set", "data.clean=[{kind: length, most: 1}]", "--to", "other"]
    assert main.run(["data", "clean", "recipe.yaml", *arguments]) == 3
    assert "dropped as length" in capsys.readouterr().err
