"""`mt backtranslate` makes a corpus that a recipe takes."""

from __future__ import annotations

import pytest
from corpus_lines import LINES

from mt.cli import main
from mt.config import recipe, validation, yaml_reader
from mt.data.prepare import prepare
from mt.decoding import translate_corpus
from mt.runtime import text_files
from mt.special_tokens import BACK_TRANSLATED


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(translate_corpus, "PART", 5)


def test_back_translation_makes_a_corpus_that_a_recipe_takes(run, tmp_path, capsys):
    text = tmp_path / "mono.en"
    text.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    command = ["backtranslate", str(run), str(text), "-o", str(tmp_path / "bt"), "--sampling"]
    command += ["--threads", "1", "--precision", "fp32", "--processes", "1"]
    assert main.run([*command, "--set", "search.max_length_extra=4"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "tag: bt" in err
    sides = [
        list(text_files.read_lines(tmp_path / "bt" / f"{side}.txt"))
        for side in ("source", "target")
    ]
    assert len(sides[0]) == len(sides[1]) > 0
    assert set(sides[1]) <= set(LINES)  # the text itself is what is to be written
    data = {
        "train": [{"kind": "text", "source": "bt/source.txt", "target": "bt/target.txt",
                   "tag": "bt"}],
        "valid": {"kind": "text", "source": "train.en", "target": "train.de"},
    }  # fmt: skip
    values = {"languages": {"source": "de", "target": "en"}, "data": data}
    values |= {"vocabulary": {"path": "run"}, "training": {"max_minutes": 1}}
    document = yaml_reader.Document(values, folder=run.parent)
    for side in ("source", "target"):
        data["train"][0][side] = str(tmp_path / "bt" / f"{side}.txt")
    prepared = prepare(validation.validate(recipe.Recipe, document), lambda _: None)
    assert {prepared.train.source(row)[0] for row in range(len(prepared.train))} == {
        BACK_TRANSLATED
    }
