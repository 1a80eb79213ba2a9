"""The outputs over a training are those of the log, the first and the last among them."""

import json

import pytest

from mt.errors import ModelError
from mt.report import samples
from mt.report.samples import read_samples


def write(folder, *records):
    text = "".join(f"{json.dumps({'step': step, 'samples': rows})}\n" for step, rows in records)
    (folder / "samples.jsonl").write_text(text)


def test_each_sentence_has_its_translation_at_each_validation(tmp_path):
    assert read_samples(tmp_path) == []
    write(tmp_path, *((n, [["a\x1b", "b", f"x{n}"], ["c", "d", "e"]]) for n in (5, 10)))
    first, second = read_samples(tmp_path)
    assert (first["source"], first["reference"]) == ("a\\x1b", "b")
    assert first["outputs"] == [{"step": 5, "text": "x5"}, {"step": 10, "text": "x10"}]
    assert second["source"] == "c"


def test_of_many_validations_some_are_shown_the_last_among_them(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "MOST_VALIDATIONS", 4)
    write(tmp_path, *((n, [["a", "b", "c"]]) for n in range(1, 101)))
    (sample,) = read_samples(tmp_path)
    assert [output["step"] for output in sample["outputs"]] == [1, 34, 67, 100]
    write(tmp_path, (1, [[f"{n}", "b", "c"] for n in range(99)]))
    assert len(read_samples(tmp_path)) == samples.MOST_SENTENCES


def test_a_damaged_log_is_reported_and_a_torn_line_is_not(tmp_path):
    write(tmp_path, (1, [["a", "b", "c"], ["a", "b"]]))
    with open(tmp_path / "samples.jsonl", "a") as stream:
        stream.write('{"step": 2, "sam')
    assert len(read_samples(tmp_path)) == 1
    write(tmp_path, ("one", []))
    with pytest.raises(ModelError, match=r"samples\.jsonl:1: damaged \(step"):
        read_samples(tmp_path)
