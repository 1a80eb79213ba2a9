"""Sources to an encoded corpus: nothing lost, nothing half-made, nothing built twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_corpora import (
    BAD,
    GOOD,
    HELD,
    PREPARE,
    SIZE,
    cached,
    quietly,
    recipe_of,
    told_by,
    write_pairs,
)

from mt.config import recipe, validation, yaml_reader
from mt.data.encode import REASONS, encode, is_blank
from mt.data.prepare import prepare
from mt.errors import ConfigError, DataError
from mt.runtime import files, text_files
from mt.special_tokens import END

KNOWN = []
"""The vocabulary of this module; hypothesis takes no fixture of a smaller scope."""


@pytest.fixture(autouse=True, scope="module")
def _known():
    from mt.config import schema
    from mt.config.schema import Languages
    from mt.vocabulary import learn

    languages = Languages(source="en", target="de")
    lines = [[pair[side] for pair in GOOD] for side in (0, 1)]
    KNOWN.append(learn.learn_vocabulary(schema.VocabularyConfig(size=SIZE), languages, *lines))


# ---------------------------------------------------------------------------- what comes out


def test_what_is_prepared_is_what_was_read(folder):
    prepared = quietly(recipe_of(folder))
    known = prepared.vocabulary
    assert len(prepared.train) == len(GOOD)
    for row in range(0, len(GOOD), 37):
        source, target = prepared.train.source(row).tolist(), prepared.train.target(row).tolist()
        assert source == [*known.encode_source([GOOD[row][0]])[0], END]
        assert target == [*known.encode_target([GOOD[row][1]])[0], END]
        assert known.decode_target([target]) == [GOOD[row][1]]
    assert [(p.source, p.target) for p in prepared.valid_pairs] == [
        ("The house is high.", "Das house ist hoch."), HELD[0],
    ]  # fmt: skip
    assert prepared.valid_pairs[1].origin == f"{folder}/valid.en:2"
    assert known.decode_target([prepared.valid.target(1)]) == [HELD[0][1]]


@pytest.mark.parametrize("reason", REASONS)
def test_what_cannot_be_used_is_dropped_and_counted(folder, reason):
    write_pairs(folder, "bad", [*GOOD[:2], *BAD[reason], *GOOD[2:4]])
    prepared, lines = told_by(recipe_of(folder, train=("train", "bad"), size=380))
    corpus = prepared.report["corpora"]["train.1"]
    assert corpus["pairs"] == 4 + len(BAD[reason])
    assert corpus["dropped"] == dict.fromkeys(REASONS, 0) | {reason: len(BAD[reason])}
    assert len(prepared.train) == len(GOOD) + corpus["kept"] == len(GOOD) + 4
    last = prepared.train.target(len(prepared.train) - 1)
    assert prepared.vocabulary.decode_target([last]) == [GOOD[3][1]]
    head, row = (
        next(line.split() for line in lines if line.startswith(w)) for w in ("corpus", "train.1")
    )
    assert int(row[head.index(reason)]) == len(BAD[reason])


ODD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\u2581"), max_size=9)


@given(st.lists(st.tuples(ODD, ODD), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pairs_in_are_pairs_kept_and_pairs_dropped(pairs):
    known = KNOWN[0]
    sources, targets = zip(*pairs, strict=True)
    encoded = encode(sources, targets, known, 12, {"x": {"x"}})
    kept = [pair for pair, reason in zip(pairs, encoded.reasons, strict=True) if reason is None]
    assert len(kept) == len(encoded.source) == len(encoded.target)
    assert known.decode_target(encoded.target) == [target for _, target in kept]
    assert {reason for reason in encoded.reasons if reason} <= set(REASONS)
    for (source, target), reason in zip(pairs, encoded.reasons, strict=True):
        assert (reason == "empty") == (is_blank(source) or is_blank(target))


def test_a_very_long_line_takes_no_time(folder):
    write_pairs(folder, "long", [("x" * 5_000_000, "y"), ("a " * 1_000_000, "b"), GOOD[0]])
    prepared = quietly(recipe_of(folder, train=("train", "long")))
    assert prepared.report["corpora"]["train.1"]["dropped"]["too_long"] == 2


def test_the_report_says_what_went_in(folder):
    prepared = quietly(recipe_of(folder))
    report = json.loads((prepared.folder / "report.json").read_text())
    assert report == prepared.report
    assert report["corpora"]["train.0"]["files"]["source"] == {
        "path": f"{folder}/train.en", "sha256": files.sha256(folder / "train.en"),
    }  # fmt: skip
    assert report["tokens"]["train"]["target"] == prepared.train.target_lengths.sum()
    assert report["vocabulary"]["digest"] == prepared.vocabulary.digest


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("pairs", "expected"), [
    ([], "there are no pairs in it"),
    ([("", ""), (" ", "x")], "none of 2 pairs is left; 2 dropped as empty"),
    ([HELD[0], HELD[0], ("", "")], "none of 3 pairs is left; 2 dropped as overlap"),
    ([("x" * 5000, "y")], "none of 1 pairs is left; 1 dropped as too_long"),
])  # fmt: skip
def test_a_corpus_of_which_nothing_is_left_is_refused(folder, pairs, expected):
    for side in ("en", "de"):
        (folder / f"bad.{side}").write_text("")
    if pairs:
        write_pairs(folder, "bad", pairs)
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder, train=("train", "bad"), size=380))
    where = f"data.train.1 ({folder}/bad.en, {folder}/bad.de)"
    assert str(error.value).splitlines()[0] == f"mt: error[DATA-EMPTY] {where}: {expected}"
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


def test_an_empty_validation_corpus_is_refused(folder):
    write_pairs(folder, "valid", [(" ", "x")])
    with pytest.raises(DataError, match=r"data\.valid .* none of 1 pairs is left"):
        quietly(recipe_of(folder))


def test_errors_of_sources_come_through_as_they_are(folder):
    (folder / "train.en").write_text("one\n")
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder))
    assert error.value.code == "DATA-LINES"
    (folder / "train.en").write_bytes(b"\xff\n" * len(GOOD))
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder))
    assert error.value.code == "DATA-UTF8"
    (folder / "train.en").unlink()
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder))
    assert error.value.code == "DATA-FILE"


def test_a_file_that_changes_meanwhile_is_reported(folder):
    def change(line):
        if line.startswith("encoding"):
            write_pairs(folder, "train", GOOD[1:])

    with pytest.raises(DataError) as error:
        prepare(recipe_of(folder), change)
    assert error.value.code == "DATA-CHANGED"


def test_a_vocabulary_that_cannot_be_is_reported(folder):
    made = recipe_of(folder)
    large = made.vocabulary.model_copy(update={"size": 30_000})
    with pytest.raises(ConfigError, match="largest possible is"):
        quietly(made.model_copy(update={"vocabulary": large}))
    known = quietly(made).folder
    reused = large.model_copy(update={"path": str(known)})
    again = quietly(made.model_copy(update={"vocabulary": reused}))
    assert again.vocabulary.size == SIZE
    assert again.folder != known


def test_a_prepared_corpus_is_opened_without_datasets(folder):
    first = quietly(recipe_of(folder))
    blocked = "import sys; sys.modules['datasets'] = None\n" + PREPARE
    made = recipe_of(folder).model_dump(mode="json", include={"languages", "data", "vocabulary"})
    (folder / "recipe.yaml").write_text(json.dumps({**made, "training": {"max_steps": 10_000}}))
    done = subprocess.run(
        [sys.executable, "-c", blocked, str(folder / "recipe.yaml")], capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == first.train.digest, done.stderr


# ------------------------------------------------------------------------------- real text


@pytest.mark.shared_data
def test_all_of_multi30k_is_kept_and_its_text_comes_back(folder, shared_data):
    """29,000 captions, none lost; what was encoded decodes to what was read."""
    data = shared_data / "multi30k"
    train, valid = (
        {"kind": "text", "source": f"{name}.en.gz", "target": f"{name}.de.gz"}
        for name in ("train", "val")
    )
    value = {
        "languages": {"source": "en", "target": "de"},
        "data": {"train": [train], "valid": valid, "processes": 1},
        "vocabulary": {"size": 8000},
        "training": {"max_steps": 10_000},
    }
    prepared = quietly(validation.validate(recipe.Recipe, yaml_reader.Document(value, folder=data)))
    corpus = prepared.report["corpora"]["train.0"]
    assert (corpus["pairs"], corpus["kept"]) == (29_000, 29_000)
    assert len(prepared.train) == 29_000
    texts = list(text_files.read_lines(data / "val.de.gz"))
    assert len(texts) == len(prepared.valid) == 1_014
    known = prepared.vocabulary
    assert [known.decode_target([prepared.valid.target(row)])[0] for row in range(1_014)] == texts
