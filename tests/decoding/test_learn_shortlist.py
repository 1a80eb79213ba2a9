"""Learning the shortlist of a run: the ids that it has, and the command."""

from __future__ import annotations

import io
import shutil
import sys

import numpy as np
import pytest
from shortlists import TOY, A, B, C, X, a, b, c, digest, trained_on_all, x

from mt.cli import main
from mt.data import ibm_model1
from mt.decoding import learn_shortlist, shortlist
from mt.errors import DataError
from mt.special_tokens import END

pytestmark = pytest.mark.usefixtures("small_shortlists")


class TestIds:
    @pytest.fixture(autouse=True)
    def exact(self, monkeypatch):
        monkeypatch.setattr(shortlist, "SIZE_MULTIPLE", 1)

    def test_their_number_is_a_multiple_as_long_as_there_are_ids(self, monkeypatch):
        found = learn_shortlist.build_shortlist(TOY, np.arange(len(TOY)), 450, 600, False, 2, 3)
        fewest = set(found.ids([[A, END]], []).tolist())
        for step in (10, 64, 256, 1000):
            monkeypatch.setattr(shortlist, "SIZE_MULTIPLE", step)
            ids = found.ids([[A, END]], []).tolist()
            assert len(ids) == min(600, -(-len(fewest) // step) * step)
            assert fewest <= set(ids)
            assert ids == sorted(set(ids))

    def test_they_are_what_is_always_there_and_the_best_of_each_piece(self):
        found = learn_shortlist.build_shortlist(TOY, np.arange(len(TOY)), 450, 600, False, 1, 1)
        often = a  # a, b and x occur as often as each other: the lowest
        for source, target in ((A, a), (B, b), (C, c), (X, x)):
            ids = found.ids([[source, END]], [])
            assert set(range(learn_shortlist.ALWAYS_ALLOWED)) <= set(ids.tolist())
            empty = int(found.pieces[ibm_model1.EMPTY, 0])
            assert set(ids[ids >= learn_shortlist.ALWAYS_ALLOWED].tolist()) == {
                target,
                often,
                empty,
            }
        together = found.ids([[A, B, END], [C, END]], [[555, 0], []])
        assert {a, b, c, 555} <= set(together.tolist())
        assert np.array_equal(together, np.unique(together))

    def test_a_joint_vocabulary_lets_a_piece_stay_itself(self):
        joint = learn_shortlist.build_shortlist(TOY, np.arange(len(TOY)), 600, 600, True, 1, 0)
        assert 444 in joint.ids([[444, END]], [])
        sides = learn_shortlist.build_shortlist(TOY, np.arange(len(TOY)), 600, 600, False, 1, 0)
        assert 444 not in sides.ids([[444, END]], [])

    def test_a_corpus_without_pairs_gives_what_is_always_there(self):
        found = learn_shortlist.build_shortlist(TOY, np.arange(0), 450, 600, True, 3, 0)
        ids = found.ids([[A, END]], [])
        assert ids.tolist() == [*range(learn_shortlist.ALWAYS_ALLOWED), A]


# ---------------------------------------------------------------------------- the command


def command(monkeypatch, capsys, *arguments, stdin=""):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    code = main.run([*map(str, arguments)])
    return code, capsys.readouterr()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, cache):
    """A run whose vocabulary is the one that its data give."""
    return trained_on_all(tmp_path_factory.mktemp("prepared"))


def test_the_command_learns_it_from_the_data_of_the_run(prepared, monkeypatch, capsys):
    code, told = command(
        monkeypatch, capsys, "shortlist", prepared, "--pieces", 5, "--frequent", 10
    )
    assert (code, told.out) == (0, "")
    found = shortlist.load_shortlist(prepared, digest(prepared))
    assert len(found.always) == learn_shortlist.ALWAYS_ALLOWED + 10
    line = "Girls sing.\n"
    on = ("--set", "search.shortlist=true", "--threads", "1")
    code, told = command(monkeypatch, capsys, "translate", prepared, *on, stdin=line)
    assert (code, len(told.out.splitlines())) == (0, 1)


def test_streamed_data_give_the_same(prepared, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(prepared, run, symlinks=True)
    learn_shortlist.learn_shortlist(prepared, 5, 10, log=lambda _: None)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert "streaming: false" in text
    (run / "config.yaml").write_text(text.replace("streaming: false", "streaming: true"))
    learn_shortlist.learn_shortlist(run, 5, 10, log=lambda _: None)
    one, two = (shortlist.load_shortlist(each, digest(run)) for each in (prepared, run))
    assert np.array_equal(one.pieces, two.pieces)
    assert np.array_equal(one.always, two.always)


def test_data_that_are_gone_or_others_are_reported(tmp_path, monkeypatch, capsys):
    run = trained_on_all(tmp_path)
    lines = (tmp_path / "train.en").read_text(encoding="utf-8")
    (tmp_path / "train.en").write_text(lines.upper(), encoding="utf-8")
    code, told = command(monkeypatch, capsys, "shortlist", run)
    assert (code, "error[VOCAB-MISMATCH]" in told.err) == (4, True)
    (tmp_path / "train.en").unlink()
    with pytest.raises(DataError, match="no such file"):
        learn_shortlist.learn_shortlist(run, log=lambda _: None)
    assert not (run / shortlist.NAME).exists()
    code, told = command(monkeypatch, capsys, "shortlist", tmp_path / "none")
    assert (code, "error[RUN-NONE]" in told.err) == (4, True)
