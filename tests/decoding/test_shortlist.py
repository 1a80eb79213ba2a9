"""The lexical shortlist: what is learned, its file, and searches among some ids only."""

from __future__ import annotations

import io
import shutil
import sys

import numpy as np
import pytest
import tiny_run
import torch

from mt.checkpoints import bundle, run_directory
from mt.cli import main
from mt.config.plugins import plugin
from mt.data.corpus import EncodedPairs
from mt.decoding import ibm_model1, learn_shortlist, shortlist
from mt.decoding.decoders import ModelDecoder
from mt.decoding.shortlist import Shortlist
from mt.decoding.shortlist_decoder import OutOfShortlistMass, ShortlistDecoder
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions, Sentence
from mt.errors import ConfigError, DataError, ModelError
from mt.special_tokens import BEGIN, END, FIRST_PIECE

A, B, C, X = 400, 401, 402, 403  # source words, and one that is everywhere
a, b, c, x = 500, 501, 502, 503  # what they become


def corpus(*pairs):
    arrays = []
    for side in zip(*pairs, strict=True):
        ids = [np.array([*each, END], np.uint16) for each in side]
        arrays += [np.concatenate(ids), np.cumsum([0, *map(len, ids)], dtype=np.int64)]
    return EncodedPairs(*arrays)


TOY = corpus(
    ([A, B], [a, b]), ([A, C], [c, a]), ([B, C], [b, c]), ([A, X], [x, a]), ([X, B], [x, b]),
    ([C], [c]), ([X], [x]),
)  # fmt: skip


class TestLexicon:
    def test_each_word_finds_its_translation(self):
        found = ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), 600, iterations=10)
        source, target = found.best(1)
        assert dict(zip(source.tolist(), target.tolist(), strict=True)).items() >= {
            (A, a), (B, b), (C, c), (X, x),
        }  # fmt: skip

    def test_the_targets_of_a_source_sum_to_one(self):
        found = ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), 600)
        sums = np.bincount(found.source, found.probability)
        assert sums[[ibm_model1.EMPTY, A, B, C, X]] == pytest.approx(1.0)
        assert END not in found.source
        assert END not in found.target

    def test_em_is_that_of_the_paper(self, monkeypatch):
        """Against the plain algorithm in dictionaries, in several chunks of links."""
        monkeypatch.setattr(ibm_model1, "CHUNK", 5)
        pairs = [(TOY.source(i)[:-1].tolist(), TOY.target(i)[:-1].tolist()) for i in range(7)]
        t = {(e, f): 1.0 for es, fs in pairs for e in (0, *es) for f in fs}
        for _ in range(3):
            counts = dict.fromkeys(t, 0.0)
            for es, fs in pairs:
                for f in fs:
                    total = sum(t[e, f] for e in (0, *es))
                    for e in (0, *es):
                        counts[e, f] += t[e, f] / total
            sums = {e: sum(v for (g, _), v in counts.items() if g == e) for e, _ in t}
            t = {(e, f): v / sums[e] for (e, f), v in counts.items()}
        found = ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), 600, iterations=3)
        entries = zip(found.source.tolist(), found.target.tolist(), strict=True)
        got = dict(zip(entries, found.probability.tolist(), strict=True))
        assert got == pytest.approx(t, abs=1e-6)

    def test_the_best_are_the_most_probable_of_equal_ones_the_lowest(self):
        probability = np.array([0.2, 0.4, 0.4, 0.9, 0.1], np.float32)
        source = np.array([70, 70, 70, 71, 71])
        found = ibm_model1.Lexicon(source, np.array([90, 91, 92, 90, 93]), probability)
        kept = [each.tolist() for each in found.best(2)]
        assert kept == [[70, 70, 71, 71], [91, 92, 90, 93]]

    def test_pairs_are_spread_over_the_corpus_and_bounded(self, monkeypatch):
        assert ibm_model1.spread_rows(TOY, 100).tolist() == list(range(7))
        assert ibm_model1.spread_rows(TOY, 3).tolist() == [0, 2, 4]
        monkeypatch.setattr(ibm_model1, "LINKS", 20)
        assert 1 <= len(ibm_model1.spread_rows(TOY, 100)) < 4

    def test_a_corpus_without_pairs_gives_what_is_always_there(self, monkeypatch):
        monkeypatch.setattr(shortlist, "SIZE_MULTIPLE", 1)
        found = learn_shortlist.build_shortlist(TOY, np.arange(0), 450, 600, True, 3, 0)
        ids = found.ids([[A, END]], [])
        assert ids.tolist() == [*range(learn_shortlist.ALWAYS_ALLOWED), A]


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


class TestFile:
    def save(self, folder, digest="v"):
        found = learn_shortlist.build_shortlist(TOY, np.arange(len(TOY)), 450, 600, False, 2, 3)
        shortlist.save_shortlist(found, folder, digest)
        return found

    def test_what_is_written_is_what_is_read(self, tmp_path):
        written, read = self.save(tmp_path), shortlist.load_shortlist(tmp_path, "v")
        assert np.array_equal(read.pieces, written.pieces)
        assert np.array_equal(read.always, written.always)

    def test_a_run_without_one_names_the_command(self, tmp_path):
        with pytest.raises(ConfigError, match="SHORTLIST-NONE") as told:
            shortlist.load_shortlist(tmp_path, "v")
        assert f"mt shortlist {tmp_path}" in str(told.value)

    def test_one_of_another_vocabulary_is_refused(self, tmp_path):
        self.save(tmp_path, "another")
        with pytest.raises(ModelError, match="VOCAB-MISMATCH"):
            shortlist.load_shortlist(tmp_path, "v")

    def test_a_damaged_one_is_refused(self, tmp_path):
        self.save(tmp_path)
        path = tmp_path / shortlist.NAME
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[-5] ^= 1
        for data in (b"", whole[:9], whole[:-1], b"x" * 500, bytes(flipped)):
            path.write_bytes(data)
            with pytest.raises(ModelError, match="SHORTLIST-DAMAGED"):
                shortlist.load_shortlist(tmp_path, "v")

    def test_one_that_is_not_whole_never_appears(self, tmp_path, monkeypatch):
        self.save(tmp_path)
        before = (tmp_path / shortlist.NAME).read_bytes()
        monkeypatch.setenv("MT_FAULT", "write:*:enospc")
        with pytest.raises(Exception, match="DISK-FULL"):
            self.save(tmp_path, "another")
        assert (tmp_path / shortlist.NAME).read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == [shortlist.NAME]


# ---------------------------------------------------------------------------- the decoder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("MT_CACHE", str(cache))
    monkeypatch.setattr(shortlist, "SIZE_MULTIPLE", 1)  # the vocabulary here is small


def digest(run):
    return run_directory.open_run(run).vocabulary.digest


def put(run, always, pieces=None):
    """Give the run a shortlist of these ids, and of these for each source id."""
    kept = np.zeros((408, 1), np.int32) if pieces is None else pieces
    found = Shortlist(kept, np.array(sorted(always), np.int32), 408)
    shortlist.save_shortlist(found, run, digest(run))


def engine(run, **more):
    search = {"shortlist": True, **more.pop("search", {})}
    return open_engine(run, EngineOptions(threads=1, precision="fp32", search=search, **more))


SOME = [*range(FIRST_PIECE), *range(FIRST_PIECE, 408, 3)]
SEARCHES = [
    {"kind": "beam"}, {"kind": "greedy"}, {"kind": "sampling"},
    {"kind": "diverse", "beams": 4, "groups": 2},
    {"kind": "beam", "no_repeat_ngram": 2, "repetition_penalty": 1.3, "coverage_penalty": 0.2},
]  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_shortlist_of_all_ids_changes_nothing(run, search):
    put(run, range(408))
    found = list(engine(run, search=search, alignments=True).translate(tiny_run.SOURCES))
    plain = {"shortlist": False, **search}
    expected = list(
        engine(run, search=plain, alignments=True).translate(tiny_run.SOURCES)
    )  # fmt: skip
    assert found == expected


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_what_is_found_is_on_the_shortlist(run, search):
    put(run, SOME)
    opened = engine(run, search=search)
    config = plugin("search", search["kind"]).Config(**search, shortlist=True)
    sentences = [Sentence([i, i + 1, END], 9) for i in range(80, 110)]
    for each in opened.searcher.search(sentences, config, EngineOptions()):
        assert set(each[0].tokens) <= {END, *SOME}
    config = config.model_copy(update={"shortlist": False})
    free = opened.searcher.search(sentences, config, EngineOptions())
    assert not {t for each in free for t in each[0].tokens} <= {END, *SOME}


def test_prefixes_are_on_it_and_tokens_are_ids_again(run):
    put(run, SOME)
    opened = engine(run)
    prefix = [102, 105, 103]  # of which 102 and 105 are not
    assert not {102, 105} & set(SOME)
    config = plugin("search", "beam").Config(shortlist=True)
    sentences = [Sentence([80, 81, END], 9, prefix), Sentence([90, END], 9)]
    asked = EngineOptions(alignments=True)
    found = [each[0] for each in opened.searcher.search(sentences, config, asked)]
    assert found[0].tokens[:3] == prefix
    assert set(found[0].tokens[3:]) <= {END, 102, 105, *SOME}
    for each, sentence in zip(found, sentences, strict=True):
        source = torch.tensor([list(sentence.source)])
        with opened.searcher.inference():
            rows = opened.searcher.decoder.align(source, torch.tensor([[each.tokens]]))
        assert torch.allclose(torch.tensor(each.alignment), rows[0, 0], atol=1e-5)


def test_logits_are_those_of_the_model_and_the_rest_is_with_padding(run):
    model = run_directory.open_run(run).model().eval()
    ids = torch.tensor(SOME)
    others = torch.tensor(sorted(set(range(408)) - set(SOME)))
    source, lengths = torch.tensor([[80, 81, END]]), torch.tensor([5])
    plain = ModelDecoder(model)
    decoder = ShortlistDecoder(model, ids, OutOfShortlistMass(model, others))
    with torch.inference_mode():
        states = [each.start(source, 2, lengths) for each in (plain, decoder)]
        for tokens in ([[BEGIN, BEGIN]], [[71, 74]], [[77, 68]]):
            fed = torch.tensor(tokens)
            full = plain.step(states[0], fed)
            some = decoder.step(states[1], torch.searchsorted(ids, fed))
            torch.testing.assert_close(some[..., 1:], full[..., ids[1:]])
            exact = full[..., torch.cat((ids[:1], others))].logsumexp(-1)
            assert torch.allclose(some[..., 0], exact, atol=0.2)
            chances = full.log_softmax(-1)[..., ids[1:]]
            assert torch.allclose(some.log_softmax(-1)[..., 1:], chances, atol=0.1)


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 5000)])
def test_the_rest_of_normal_rows_is_what_it_is_estimated_to_be(bias):
    class Model:
        def output(self):
            generator = torch.Generator().manual_seed(1)
            return torch.randn(5000, 8, generator=generator) * 0.3 + 0.1, bias

    weight, _ = Model().output()
    hidden = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    some = torch.arange(0, 5000, 2)
    exact = torch.nn.functional.linear(hidden, weight, bias)[:, some].logsumexp(-1)
    estimate = OutOfShortlistMass(Model(), torch.arange(5000))(hidden, len(some))
    assert torch.allclose(estimate, exact, atol=0.1)


def test_an_ensemble_and_processes_have_it_too(run, tmp_path, monkeypatch):
    monkeypatch.undo()  # the processes, too, have a STEP of their own
    put(run, SOME)
    other = tiny_run.make(tmp_path, seed=2)
    alone = [each.text for each in engine(run).translate(tiny_run.SOURCES)]
    both = [each.text for each in engine(run, ensemble_paths=(run,)).translate(tiny_run.SOURCES)]
    assert both == alone
    several = [each.text for each in engine(run, processes=2).translate(tiny_run.SOURCES)]
    assert several == alone
    mixed = engine(run, ensemble_paths=(other,))
    assert len(list(mixed.translate(tiny_run.SOURCES))) == len(tiny_run.SOURCES)


def test_a_missing_one_is_reported_when_the_model_is_opened(tmp_path):
    run = tiny_run.make(tmp_path)
    with pytest.raises(ConfigError, match="SHORTLIST-NONE"):
        engine(run)
    with pytest.raises(ConfigError, match="SHORTLIST-NONE"):
        engine(run, processes=2)


def test_a_model_in_training_searches_all(run):
    opened = run_directory.open_run(run)
    recipe = opened.recipe
    wanted = recipe.search.model_copy(update={"shortlist": True})
    recipe = recipe.model_copy(update={"search": wanted})
    build, device = plugin("engines", "native").native_engine, torch.device("cpu")
    made = build(opened.model(), opened.vocabulary, recipe, device, "fp32")
    assert len(list(made.translate(tiny_run.SOURCES))) == len(tiny_run.SOURCES)


# ---------------------------------------------------------------------------- the command


def command(monkeypatch, capsys, *arguments, stdin=""):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    code = main.run([*map(str, arguments)])
    return code, capsys.readouterr()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, cache):
    """A run whose vocabulary is the one that its data give."""
    return trained_on_all(tmp_path_factory.mktemp("prepared"))


def trained_on_all(folder):
    """A run; its validation pairs, which are those it trains on, are not left out."""
    run = tiny_run.make(folder)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    kept = text.replace("drop_overlap: true", "drop_overlap: false")
    (run / "config.yaml").write_text(kept, encoding="utf-8")
    return run


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


def test_ctranslate2_refuses_it_by_name():
    settings = plugin("engines", "ctranslate2").settings
    config = plugin("search", "beam").Config(shortlist=True)
    with pytest.raises(ConfigError, match=r"search\.shortlist"):
        settings(config, EngineOptions())
    assert settings(config.model_copy(update={"shortlist": False}), EngineOptions())


def test_a_bundle_of_a_run_that_uses_one_searches_all(tmp_path):
    run = trained_on_all(tmp_path)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    kept = text.replace("shortlist: false", "shortlist: true")
    assert kept != text
    (run / "config.yaml").write_text(kept, encoding="utf-8")
    opened = run_directory.open_run(run)
    bundle.write_bundle(tmp_path / "made.mt", opened, opened.model())
    made = open_engine(tmp_path / "made.mt", EngineOptions(threads=1, precision="fp32"))
    assert len(list(made.translate(tiny_run.SOURCES))) == len(tiny_run.SOURCES)
    with pytest.raises(ConfigError, match=r"SHORTLIST-NONE.*made\.mt has none"):
        engine(tmp_path / "made.mt")
