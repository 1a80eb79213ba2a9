"""Guided alignment: the links of a batch, the loss against them, and what a training gains."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from gated_models import (
    NO_SCALER,
    assert_any_cut_is_the_same,
    batches,
    built,
    cross_entropy,
    mixture,
)
from resumable_run import written
from shortlists import TOY, A, B, X, a, b, x

from mt.config import recipe as recipes
from mt.data import collate, ibm_model1
from mt.errors import ConfigError
from mt.models import rnn
from mt.special_tokens import END
from mt.training import setup
from mt.training.guided_alignment import (
    FROM_NOTHING,
    LEAST,
    TENSION,
    Aligner,
    GuidedAlignment,
    add_guided_alignment,
    alignment_loss,
)
from mt.training.objectives import r_drop
from mt.training.step import ModelWithLoss, accumulate_gradients

CPU = torch.device("cpu")
SIZE = 600


@pytest.fixture(scope="module")
def lexicon():
    return ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), SIZE)


@pytest.fixture(scope="module")
def aligner(lexicon):
    return Aligner(lexicon, SIZE, CPU)


def plain_links(lexicon, source, target):
    """The links of one pair, without its ends, in plain loops."""
    entries = zip(lexicon.source.tolist(), lexicon.target.tolist(), strict=True)
    t = dict(zip(entries, lexicon.probability.tolist(), strict=True))
    t = {entry: value for entry, value in t.items() if value >= LEAST}
    rows = []
    for j, piece in enumerate(target):
        place = j / (len(target) + 1)
        near = [math.exp(-TENSION * abs(i / len(source) - place)) for i in range(len(source))]
        joint = [
            (1 - FROM_NOTHING) * n / sum(near) * t.get((e, piece), 0)
            for n, e in zip(near, source, strict=True)
        ]
        total = sum(joint) + FROM_NOTHING * t.get((ibm_model1.EMPTY, piece), 0)
        rows.append([value / total if total else 0.0 for value in joint])
    return rows


class TestLinks:
    PAIRS = (([A, B, X], [b, a]), ([X], [x, x, 555]), ([444, A, A, B], [a]))

    def test_they_are_those_of_plain_loops_whatever_else_is_in_the_batch(self, lexicon, aligner):
        sides = [[np.array([*ids, END]) for ids in side] for side in zip(*self.PAIRS, strict=True)]
        links = aligner.links(collate.to_batch(*sides, np.arange(3), (5, 9, 7)))
        assert links.shape == (5, 7, 9)
        for row, (source, target) in enumerate(self.PAIRS):
            want = torch.zeros(7, 9)
            want[: len(target), : len(source)] = torch.tensor(plain_links(lexicon, source, target))
            want[len(target), len(source)] = 1.0  # the end comes from the end
            torch.testing.assert_close(links[row], want)
        assert not links[3:].any()

    def test_a_piece_is_linked_to_its_translation(self, aligner):
        sides = [np.array([A, B, X, END])], [np.array([x, b, a, END])]
        links = aligner.links(collate.to_batch(*sides, np.arange(1)))[0]
        assert links.argmax(-1).tolist() == [2, 1, 0, 3]
        assert links.sum(-1).max() <= 1 + 1e-6

    def test_copies_share_one_lexicon(self, aligner):
        assert copy.deepcopy(aligner) is aligner

    def test_without_a_lexicon_only_the_end_is_linked(self):
        none = np.empty(0, np.int64)
        empty = Aligner(ibm_model1.Lexicon(none, none, np.empty(0, np.float32)), SIZE, CPU)
        sides = [np.array([A, END])], [np.array([a, END])]
        links = empty.links(collate.to_batch(*sides, np.arange(1)))
        assert links.tolist() == [[[0, 0], [0, 1]]]


def guided(model, vocabulary, aligner, objective=None, weight=0.5):
    objective = objective or cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    return ModelWithLoss(model, GuidedAlignment(objective, model, aligner, weight), "fp32")


@pytest.fixture
def copying(vocabulary):
    """An aligner that knows that each piece is its own translation."""
    ids = np.arange(68, 76)
    lexicon = ibm_model1.Lexicon(ids, ids, np.ones(len(ids), np.float32))
    return Aligner(lexicon, vocabulary.target_size, CPU)


class TestObjective:
    def test_it_keeps_the_laws_of_objectives(self, vocabulary, copying):
        """`counts` gives the counts; micro-batches are cut freely; validation adds nothing."""
        step = guided(built(vocabulary), vocabulary, copying)
        assert_any_cut_is_the_same(step)
        (batch,) = batches(16, 16)
        counts = {name: int(count) for name, count in step.objective.counts(batch).items()}
        assert {term.name: int(term.count) for term in step(batch)} == counts
        assert [*counts] == ["loss", "alignment"]
        assert [term.name for term in step.eval()(batch)] == [*step.objective.counts(batch)]
        assert [*step.objective.counts(batch)] == ["loss"]

    def test_the_translation_loss_stays_what_it_is(self, vocabulary, copying):
        model = built(vocabulary)
        (batch,) = batches(8, 8)
        plain = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None).train()
        loss, alignment = guided(model, vocabulary, copying, weight=0.25).train()(batch)
        assert torch.equal(loss.total, plain(batch)[0].total)
        assert alignment.weight == 0.25

    def test_two_passes_count_as_their_mean(self, vocabulary, copying):
        model = built(vocabulary)
        (batch,) = batches(8, 8)
        twice = guided(model, vocabulary, copying, r_drop.RDrop(model, 0.1, 5.0)).train()(batch)
        once = guided(model, vocabulary, copying).train()(batch)
        torch.testing.assert_close(twice[1].total, once[1].total)
        assert int(twice[1].count) == int(once[1].count)

    def test_a_batch_of_padding_has_no_loss(self, vocabulary, copying):
        empty = collate.collate_pairs(TOY, np.empty(0, np.int64))
        _, alignment = guided(built(vocabulary), vocabulary, copying).train()(empty)
        assert alignment.total.item() == 0
        alignment.total.backward()

    def test_the_loss_is_the_cross_entropy_of_the_mean_over_heads(self):
        heads = torch.tensor([[0.7, 0.3], [0.1, 0.9]])[None, :, None]  # [1, 2, 1, 2]
        links = torch.tensor([[[0.5, 0.25]]])
        want = -(0.5 * math.log(0.4) + 0.25 * math.log(0.6))
        assert float(alignment_loss(heads, links)) == pytest.approx(want)

    @pytest.mark.parametrize("kind", ["transformer", "mixture_of_heads", "bahdanau", "dot"])
    def test_attention_learns_to_look_along_the_links(self, vocabulary, copying, kind):
        """The same updates without it leave attention spread over the source."""
        shares = {}
        for weight in (0.0, 1.0):
            torch.manual_seed(1)
            if kind == "transformer":
                model = built(vocabulary)
            elif kind == "mixture_of_heads":
                model = built(vocabulary, mixture, heads_per_sentence=2)
            else:
                model = rnn.build(rnn.Config(d_model=16, units=16, attention=kind), vocabulary)
            step = guided(model, vocabulary, copying, weight=weight)
            optimizer = torch.optim.Adam(step.parameters(), 5e-3)
            for number in range(60):
                optimizer.zero_grad()
                (batch,) = batches(16, 16, seed=number)
                accumulate_gradients(step, step.objective, [batch], NO_SCALER)
                optimizer.step()
            (batch,) = batches(16, 16, seed=99)
            looked = step.model.eval().attention(batch.source, batch.inputs).detach()
            links = copying.links(batch)
            shares[weight] = float((looked * links).sum() / links.sum())
        assert shares[1.0] > 2 * shares[0.0]


class TestRecipe:
    def test_a_recipe_without_it_has_the_objective_as_it_is(self, tmp_path, vocabulary):
        loaded, _ = recipes.load(written(tmp_path))
        objective = torch.nn.Identity()
        assert add_guided_alignment(objective, objective, loaded, None, CPU, print) is objective

    @pytest.mark.parametrize("attention", ["none", None])
    def test_a_model_without_attention_is_refused(self, tmp_path, vocabulary, attention):
        loaded, _ = recipes.load(written(tmp_path, objective__alignment_weight=0.2))
        model = torch.nn.Identity()
        if attention is not None:
            model = rnn.build(rnn.Config(d_model=8, units=8, attention=attention), vocabulary)
        with pytest.raises(ConfigError, match=r"attention|record_alignment"):
            add_guided_alignment(torch.nn.Identity(), model, loaded, None, CPU, print)

    def test_it_is_part_of_the_run_and_of_no_checkpoint(self, built_guided):
        run, _ = built_guided
        assert isinstance(run.module.objective, GuidedAlignment)
        assert len(run.module.objective.aligner.keys) > 100
        names = {name for name, _ in run.module.named_parameters()}
        plain = setup.build_module(run.recipe, run.data.prepared.vocabulary, None, CPU)
        assert names == {name for name, _ in plain.named_parameters()}
        assert {*run.module.state_dict()} >= names
