"""Text of one side: read, marked, filtered and batched as pairs are, and refused by name."""

import itertools
import json
import unicodedata

import pytest

from mt.checkpoints.train_state import TrainState
from mt.config import recipe
from mt.config.validation import validate
from mt.config.yaml_reader import Document, parse
from mt.data.encode import is_blank
from mt.data.pairs import read_pairs
from mt.data.prepare import prepare
from mt.data.streaming import Stream
from mt.errors import ConfigError
from mt.runtime.distributed import SINGLE
from mt.special_tokens import END, MASK

WORDS = ["house", "tree", "river", "street", "child", "window", "letter", "garden"]
ENGLISH = [f"The {a} and the {b}." for a in WORDS for b in WORDS]
GERMAN = [f"Das {a} oder  das {b}!" for a in WORDS for b in WORDS]
VALID = [("The mountain is high.", "Der Berg ist hoch."), ("A fine day", "Ein Tag")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    files = {"mono.en": ENGLISH, "mono.de": GERMAN}
    files |= {f"valid.{side}": [pair[i] for pair in VALID] for i, side in enumerate(("en", "de"))}
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


EN, DE = ({"kind": "text", side: f"mono.{c}"} for side, c in (("source", "en"), ("target", "de")))
BOTH = {"kind": "text", "source": "mono.en", "target": "mono.de"}


def recipe_of(folder, train, **data):
    value = {
        "languages": {"source": "en", "target": "de"},
        "data": {
            "train": train, "valid": {"kind": "text", "source": "valid.en", "target": "valid.de"},
            "max_length": 40, "processes": 1, **data,
        },
        "vocabulary": {"size": 352},
        "objective": {"kind": "denoising"},
        "batching": {"tokens": 300, "window": 2},
        "training": {"max_steps": 9000, "monitor": "loss"},
    }  # fmt: skip
    return validate(recipe.Recipe, Document(value, folder=folder))


def quietly(made):
    return prepare(made, lambda line: None)


def texts(prepared):
    """The target of every training row, as text."""
    rows = [prepared.train.target(row) for row in range(len(prepared.train))]
    return prepared.vocabulary.decode_target(rows)


def test_a_monolingual_row_has_its_text_on_both_sides_and_a_mark(folder):
    prepared = quietly(recipe_of(folder, [DE]))
    known = prepared.vocabulary
    assert texts(prepared) == GERMAN
    for row in (0, 9, 63):
        ids = known.encode_source([GERMAN[row]])[0]
        assert prepared.train.source(row).tolist() == [MASK, *ids, END]
    assert "<2de>" not in known.controls  # one language need not be told


def test_several_languages_are_distinguished_by_a_piece_that_the_vocabulary_names(folder):
    prepared = quietly(recipe_of(folder, [EN, DE]))
    known = prepared.vocabulary
    assert {"<2en>", "<2de>"} < set(known.controls)
    first, last = (prepared.train.source(row).tolist() for row in (0, 64))
    assert first[:2] == [MASK, known.controls["<2en>"]]
    assert last[:2] == [MASK, known.controls["<2de>"]]
    assert known.pieces_source(last[:2]) == ["<mask>", "<2de>"]
    again = quietly(recipe_of(folder, [EN, DE]))  # from the cache
    assert again.vocabulary.controls == known.controls
    assert again.digest == prepared.digest


def test_parallel_and_monolingual_corpora_stand_side_by_side(folder):
    prepared = quietly(recipe_of(folder, [BOTH, DE]))
    marked = [prepared.train.source(row)[0] == MASK for row in range(128)]
    assert marked == [False] * 64 + [True] * 64


def test_only_one_side_of_any_source_is_read(folder):
    for side, lines in (("source", ENGLISH), ("target", GERMAN)):
        prepared = quietly(recipe_of(folder, [{**BOTH, "only": side}]))
        assert texts(prepared) == lines
    pairs = read_pairs(recipe_of(folder, [{**BOTH, "only": "source"}]).data.train[0])
    assert [pair.target for pair in pairs] == [None] * 64
    assert [pair.source for pair in pairs] == ENGLISH  # and again


def test_what_cannot_be_used_is_dropped_and_counted(folder):
    bad = ["", "a\0b", "Der  Berg ist hoch.", "A ﬁne day", "wort " * 60]
    (folder / "mono.de").write_text("".join(f"{line}\n" for line in [*GERMAN, *bad]))
    report = quietly(recipe_of(folder, [DE])).report["corpora"]["train.0"]
    assert report["dropped"] == {"empty": 1, "nul": 1, "overlap": 2, "too_long": 1}
    kept = quietly(recipe_of(folder, [DE], drop_overlap=False)).report["corpora"]["train.0"]
    assert kept["dropped"]["overlap"] == 0


def test_a_stream_holds_what_preparing_holds(folder):
    settled = recipe_of(folder, [BOTH, EN, {**BOTH, "only": "target"}])
    prepared = quietly(settled)
    streamed = recipe_of(folder, [BOTH, EN, {**BOTH, "only": "target"}], streaming=True)
    held = quietly(streamed).held_out
    assert held[""] >= {"Der Berg ist hoch.", "The mountain is high."}
    stream = Stream(streamed, prepared.vocabulary, held, 400, SINGLE, lambda line: None)
    found = []
    updates = stream.updates(TrainState())
    for micros, after in updates:
        rows = itertools.chain.from_iterable(micros)
        found += [tuple(stream.window.source(int(row)).tolist()) for row in rows]
        if after.epoch:
            break
    wanted = [tuple(prepared.train.source(row).tolist()) for row in range(len(prepared.train))]
    assert sorted(found) == sorted(wanted)


def test_validation_may_be_monolingual(folder):
    prepared = quietly(recipe_of(folder, [EN, DE], valid={"kind": "text", "target": "valid.de"}))
    tag = prepared.vocabulary.controls["<2de>"]
    assert prepared.valid.source(0).tolist()[:2] == [MASK, tag]
    assert [pair.source for pair in prepared.valid_pairs] == [None, None]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("objective", {"kind": "cross_entropy"}), r"data\.train\.0: has its target side only, "
         r"from which objective\.kind: cross_entropy cannot learn; denoising can"),
        (("vocabulary", {"size": 400, "joint": False}), r"vocabulary\.joint: true"),
        (("data.test", {"t": DE}), r"data\.test\.t: a test set needs both sides"),
        (("data.valid", DE), r"data\.valid: .* training\.monitor: bleu must be loss"),
        (("data.train", [{"kind": "text"}]), "one of the two files must be given"),
        (("data.train", [{**DE, "only": "source"}]), "only: source, but source names no file"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_by_name(folder, change, told):
    value = json.loads(json.dumps({
        "languages": {"source": "en", "target": "de"},
        "data": {"train": [DE], "valid": BOTH},
        "objective": {"kind": "denoising"},
        "training": {"max_steps": 9000},
    }))  # fmt: skip
    path, new = change
    section, _, key = path.partition(".")
    if key:
        value[section][key] = new
    else:
        value[section] = new
    with pytest.raises(ConfigError, match=told):
        validate(recipe.Recipe, parse(json.dumps(value), "recipe", folder))


def test_invisible_text_is_blank():
    for blank in ("", " ", "\u200b", "\ufeff", "\u00a0\u3000", "\u2028", "\x07\0", "\u202e"):
        assert is_blank(blank)
    for seen in (".", " x", "\u0301", "\ue000", "。"):
        assert unicodedata.category(seen[-1])
        assert not is_blank(seen)
