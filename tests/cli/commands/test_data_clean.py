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


def test_the_scores_of_two_models_choose_the_best_pairs(run, tmp_path, monkeypatch, capsys):
    """The three commands of docs/cleaning.md; one model stands for both directions."""
    monkeypatch.chdir(tmp_path)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    for name, source, target in (("forward", "en", "de"), ("backward", "de", "en")):
        arguments = ["--source", f"train.{source}", "--target", f"train.{target}", "--normalize"]
        assert main.run(["score", str(run), *arguments, "--threads", "1"]) == 0
        (tmp_path / name).write_text(capsys.readouterr().out)
    rule = "{kind: dual_cross_entropy, forward: forward, backward: backward, keep: 0.5}"
    arguments = ["--set", f"data.clean=[{rule}]", "--to", "best"]
    assert main.run(["data", "clean", "recipe.yaml", *arguments]) == 0
    count = len(sound_recipe.DATA["train.en"].splitlines())
    assert len((tmp_path / "best" / "train.en").read_text().splitlines()) == -(-count // 2)
