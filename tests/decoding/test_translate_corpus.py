"""A corpus is translated once: killed anywhere and run again, by however many processes."""

from __future__ import annotations

import json

import pytest
from corpus_lines import LINES

from mt.cli import main
from mt.decoding import translate_corpus
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError
from mt.runtime import files, text_files


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(translate_corpus, "PART", 5)


SAMPLED = {"kind": "sampling", "max_length_extra": 4}


def options(**more):
    return EngineOptions(precision="fp32", threads=1, **more)


def job(run, out, lines=LINES, side="target", **more):
    return translate_corpus.CorpusJob(run, lines, out, options(**more), side)


def contents(out):
    return {name: (out / name).read_bytes() for name in ("source.txt", "target.txt")}


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_the_corpus_is_what_the_engine_translates_blank_lines_left_out(run, tmp_path):
    about = translate_corpus.translate_corpus(job(run, tmp_path / "out"), lambda _: None)
    engine = open_engine(run, options())
    wanted = [
        each.text
        for start in range(0, len(LINES), translate_corpus.PART)
        for each in engine.translate(LINES[start : start + translate_corpus.PART])
    ]
    both = [(a, b) for a, b in zip(LINES, wanted, strict=True) if a.strip() and b.strip()]
    for side, number in (("source", 0), ("target", 1)):
        assert list(text_files.read_lines(tmp_path / "out" / f"{side}.txt")) == [
            p[number] for p in both
        ]
    assert (about["pairs"], about["left_out"]) == (len(both), len(LINES) - len(both))
    assert not (tmp_path / "out" / "parts").exists()


@pytest.mark.parametrize("search", [{}, SAMPLED], ids=["beam", "sampling"])
def test_killed_after_each_part_and_run_again_it_ends_with_the_same_bytes(
    run, tmp_path, monkeypatch, search
):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    translate_corpus.translate_corpus(job(run, whole, search=search), lambda _: None)
    write, made = files.write_file, []

    def write_then_die(path, data):
        write(path, data)
        if path.name.startswith("part-"):
            made.append(path.name)
            raise Killed

    monkeypatch.setattr(files, "write_file", write_then_die)
    for _ in range(len(LINES)):
        try:
            translate_corpus.translate_corpus(job(run, resumed, search=search), lambda _: None)
            break
        except Killed:
            assert not (resumed / "corpus.json").exists()
    assert (
        len(made) == len(set(made)) == -(-len(LINES) // translate_corpus.PART)
    )  # each was made once
    assert contents(resumed) == contents(whole)


def test_processes_change_nothing(run, tmp_path):
    for processes in (1, 2):
        out = tmp_path / str(processes)
        translate_corpus.translate_corpus(
            job(run, out, search=SAMPLED, processes=processes), lambda _: None
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_what_is_done_is_not_done_again_and_what_changed_is(run, tmp_path, monkeypatch):
    told = []
    translate_corpus.translate_corpus(job(run, tmp_path / "out"), told.append)
    before = contents(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(translate_corpus, "_translate", None)  # would fail if it were called
        translate_corpus.translate_corpus(job(run, tmp_path / "out"), told.append)
    assert "there already" in told[-1]
    lines = ["Girls sing.", *LINES[1:]]
    translate_corpus.translate_corpus(job(run, tmp_path / "out", lines), told.append)
    assert contents(tmp_path / "out")["source.txt"] != before["source.txt"]
    (tmp_path / "out" / "target.txt").write_bytes(b"torn")
    translate_corpus.translate_corpus(job(run, tmp_path / "out"), told.append)
    assert contents(tmp_path / "out") == before


def test_samples_depend_on_the_seed_and_no_two_parts_have_the_same(run, tmp_path):
    lines = ["Two dogs play in the grass!"] * 10
    texts = []
    for seed in (1, 2):
        out = tmp_path / str(seed)
        translate_corpus.translate_corpus(
            job(run, out, lines, "source", search=SAMPLED, seed=seed), lambda _: None
        )
        texts.append(list(text_files.read_lines(out / "source.txt")))
    assert texts[0] != texts[1]
    assert texts[0][:5] != texts[0][5:]


def test_what_is_no_corpus_of_ours_is_left_alone(run, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear", encoding="utf-8")
    (tmp_path / "file").write_text("dear", encoding="utf-8")
    for name in ("letters", "file"):
        with pytest.raises(ConfigError, match="OUTPUT-EXISTS"):
            translate_corpus.translate_corpus(job(run, tmp_path / name), lambda _: None)
    assert (tmp_path / "letters" / "love.txt").read_text(encoding="utf-8") == "dear"


def test_what_it_says_names_no_path(run, tmp_path):
    translate_corpus.translate_corpus(job(run, tmp_path / "out"), lambda _: None)
    about = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(about)


def test_an_export_that_would_draw_other_samples_is_refused(run, tmp_path):
    pytest.importorskip("ctranslate2")
    folder = tmp_path / "folder"
    assert main.run(["export", str(run), "--to", "ctranslate2", "-o", str(folder)]) == 0
    with pytest.raises(ConfigError, match="same samples"):
        translate_corpus.translate_corpus(
            job(folder, tmp_path / "out", search=SAMPLED), lambda _: None
        )
    translate_corpus.translate_corpus(job(folder, tmp_path / "out"), lambda _: None)
    assert (tmp_path / "out" / "corpus.json").exists()
