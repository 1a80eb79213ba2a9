"""`mt attention` writes maps of what it can open and refuses the rest by name."""

from __future__ import annotations

import pytest
from shown_maps import SOURCE, data_of, shown

from mt.checkpoints import bundle
from mt.cli import main


def test_the_command_writes_a_page_of_a_run_a_checkpoint_and_a_bundle(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    packed = tmp_path / "tiny.mt"
    opened = bundle.open_loaded_model(run)
    bundle.write_bundle(packed, opened, opened.model())
    pages = []
    for model in (run, run / "checkpoints" / "step-00000007", packed):
        arguments = [model, "--source", SOURCE, "--precision", "fp32", "--force"]
        code, out, err = shown(arguments, capsys)
        assert (code, out) == (0, ""), err
        assert "wrote attention.html" in err
        pages.append(data_of((tmp_path / "attention.html").read_text(encoding="utf-8")))
    assert [page["translations"] for page in pages] == [pages[0]["translations"]] * 3
    assert pages[0]["text"] == SOURCE
    code, _, err = shown([run, "--source", SOURCE], capsys)  # it is there, and not replaced
    assert code == 2
    assert "--force" in err


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--source", "  "], 3, "nothing in it"),
        (["--source", "a " * 60], 3, "room for"),
        (["--source", "a", "--target", "b " * 60], 3, "room for"),
        (["--source", "a", "--target", " "], 3, "nothing in it"),
        (["--source", "a", "--target", "b", "--n-best", "2"], 2, "--n-best"),
        (["--source", "a", "--n-best", "9"], 2, "beams"),
        (["--source", "a", "--terminal", "--part", "all"], 2, "cross"),
        (["--source", "a", "--terminal", "--layer", "2"], 2, "layers 1 to 1"),
        (["--source", "a", "--terminal", "--head", "3"], 2, "heads 1 to 2"),
    ],
)
def test_what_cannot_be_shown_is_reported(run, capsys, tmp_path, monkeypatch, more, code, told):
    monkeypatch.chdir(tmp_path)
    found, out, err = shown([run, *more], capsys)
    assert (found, out) == (code, "")
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_and_other_engines_and_models_without_attention_are_refused(
    run, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = shown([run, run, "--source", "a"], capsys)
    assert (code, "ensemble" in err) == (2, True)
    from mt.models.modules import transformer_layers

    monkeypatch.delattr(transformer_layers.TransformerStacks, "attention")
    monkeypatch.delattr(transformer_layers.TransformerStacks, "attentions")
    for more in ([], ["--target", "b"]):
        code, _, err = shown([run, "--source", "a", *more], capsys)
        assert code == 2
        assert "Transformer tells of no attention" in err


def test_a_ctranslate2_folder_is_refused_by_name(run, capsys, tmp_path, monkeypatch):
    pytest.importorskip("ctranslate2")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exported"
    assert main.run(["export", str(run), "--to", "ctranslate2", "-o", str(folder)]) == 0
    code, _, err = shown([folder, "--source", "a"], capsys)
    assert code == 2
    assert "ctranslate2" in err
    assert "give the run" in err
