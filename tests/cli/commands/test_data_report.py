"""`mt data report`."""

import sound_recipe

from mt.cli import main


def test_it_prints_a_verdict_and_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    assert main.run(["data", "report", "recipe.yaml", "-o", "page.html"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("corpus")
    assert "warning:" in out
    assert "reading 1 training corpora" in err
    assert (tmp_path / "page.html").exists()
    assert (tmp_path / "page.json").exists()
    limits = ["--set", "data.limits={leaked: 0}"]
    code = main.run(["data", "report", "recipe.yaml", *limits])
    out, err = capsys.readouterr()
    assert (code, "DATA-LIMITS" in err) in {(3, True), (0, False)}
