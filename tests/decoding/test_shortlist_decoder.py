"""Searches among the ids of a shortlist only."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_run
import torch
from shortlists import digest, engine

from mt.checkpoints import run_directory
from mt.config.plugins import plugin
from mt.decoding import shortlist
from mt.decoding.decoders import ModelDecoder
from mt.decoding.shortlist import Shortlist
from mt.decoding.shortlist_decoder import OutOfShortlistMass, ShortlistDecoder
from mt.decoding.types import EngineOptions, Sentence
from mt.special_tokens import BEGIN, END, FIRST_PIECE

pytestmark = pytest.mark.usefixtures("small_shortlists")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that gets shortlists."""
    return tiny_run.make(tmp_path_factory.mktemp("short"))


def put(run, always, pieces=None):
    """Give the run a shortlist of these ids, and of these for each source id."""
    kept = np.zeros((408, 1), np.int32) if pieces is None else pieces
    found = Shortlist(kept, np.array(sorted(always), np.int32), 408)
    shortlist.save_shortlist(found, run, digest(run))


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


def test_a_model_in_training_searches_all(run):
    opened = run_directory.open_run(run)
    recipe = opened.recipe
    wanted = recipe.search.model_copy(update={"shortlist": True})
    recipe = recipe.model_copy(update={"search": wanted})
    build, device = plugin("engines", "native").native_engine, torch.device("cpu")
    made = build(opened.model(), opened.vocabulary, recipe, device, "fp32")
    assert len(list(made.translate(tiny_run.SOURCES))) == len(tiny_run.SOURCES)
