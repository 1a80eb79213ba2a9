"""Laws of the denoising objective: which rows are noised, what stays, what each term counts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mt.data import collate, noising
from mt.errors import ConfigError
from mt.models import transformer
from mt.special_tokens import END, MASK, PAD
from mt.training.objectives import denoising
from mt.training.step import ModelWithLoss, accumulate_gradients

TAG = 6


def made(vocabulary, **settings):
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    return denoising.build(denoising.Config(**settings), model, vocabulary, None)


def rows_of(generator, count):
    """Monolingual rows with and without a language, and parallel ones, in turn."""
    pairs = []
    for number in range(count):
        text = np.append(generator.integers(68, 90, generator.integers(1, 12)), END)
        front = ([MASK, TAG], [MASK], [])[number % 3]
        source = np.concatenate((front, text)) if front else np.append(text[:-1][::-1], END)
        pairs.append((source.astype(np.int64), text))
    return pairs


@pytest.fixture
def pairs():
    return rows_of(np.random.default_rng(1), 48)


def batch_of(pairs, first=0):
    rows = np.arange(first, first + len(pairs))
    return collate.to_batch([s for s, _ in pairs], [t for _, t in pairs], rows)


def noised(batch, seed=3, **settings):
    config = denoising.Config(**settings)
    return denoising.add_noise(
        batch, config, noising.poisson_lengths(config.span), torch.tensor(seed)
    )


HARD = {"mask": 0.3, "delete": 0.2, "shuffle": 3.0}


def test_only_monolingual_rows_are_noised_and_their_front_and_end_stay(pairs):
    batch = batch_of(pairs)
    read = noised(batch, **HARD)
    assert torch.equal(read.target, batch.target)
    assert torch.equal((read.source != PAD).sum(1), read.source_lengths)
    changed = 0
    for number, (source, _) in enumerate(pairs):
        ids = read.source[number, : read.source_lengths[number]].tolist()
        if number % 3 == 2:
            assert ids == source.tolist()
            continue
        front = [TAG] if number % 3 == 0 else []
        assert ids[: len(front)] == front
        assert ids[-1] == END
        text = ids[len(front) : -1]
        assert set(text) <= {MASK, *source.tolist()}
        assert TAG not in text
        changed += text != source.tolist()[len(front) + 1 : -1]
    assert changed > 20


def test_without_noise_only_the_mark_is_gone(pairs):
    read = noised(batch_of(pairs), mask=0.0)
    for number, (source, _) in enumerate(pairs):
        ids = read.source[number, : read.source_lengths[number]].tolist()
        assert ids == source.tolist()[number % 3 != 2 :]


def test_noise_does_not_depend_on_the_batch(pairs):
    whole = noised(batch_of(pairs), **HARD)
    part = noised(batch_of(pairs[20:23], first=20), **HARD)
    for i in range(3):
        n = part.source_lengths[i]
        assert n == whole.source_lengths[20 + i]
        assert torch.equal(part.source[i, :n], whole.source[20 + i, :n])


def test_each_seed_has_its_own_noise_in_training_and_evaluation_one_noise(vocabulary, pairs):
    objective, batch = made(vocabulary), batch_of(pairs)
    totals = {True: [], False: []}
    for training in totals:
        objective.train(training)
        for seed in (1, 2, 1):
            objective.begin(seed)
            totals[training].append(float(objective(batch)[0].total.detach()))
    one, two, again = totals[True]
    assert one == again != two
    assert len(set(totals[False])) == 1


def test_each_term_counts_its_own_rows(vocabulary, pairs):
    objective, batch = made(vocabulary, predict_weight=0.5), batch_of(pairs)
    terms = {term.name: term for term in objective(batch)}
    lengths = [len(target) for _, target in pairs]
    parallel = sum(lengths[2::3])
    assert int(terms["translation"].count) == parallel
    assert int(terms["denoising"].count) == sum(lengths) - parallel
    assert 0 < int(terms["predict"].count) < sum(lengths)
    told = objective.counts(batch)
    assert {n: int(t.count) for n, t in terms.items()} == {n: int(c) for n, c in told.items()}
    objective.eval()
    assert [term.name for term in objective(batch)] == ["denoising", "translation"]
    assert {term.weight for term in objective(batch)} == {1.0}


def test_accumulation_equals_one_batch(vocabulary, pairs):
    objective = made(vocabulary, predict_weight=0.5, **HARD)
    step = ModelWithLoss(objective.model, objective, "fp32")
    no_scaler = torch.amp.GradScaler("cpu", enabled=False)
    found = []
    for size in (48, 7):
        step.zero_grad()
        cut = [batch_of(pairs[i : i + size], i) for i in range(0, len(pairs), size)]
        loss = accumulate_gradients(step, objective, cut, no_scaler)
        found.append((loss, [p.grad.clone() for p in step.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_weights_weigh(vocabulary, pairs):
    batch = batch_of(pairs)
    weights = {"weight": 0.0, "translation_weight": 2.0, "predict_weight": 3.0}
    objective = made(vocabulary, **weights)
    assert [term.weight for term in objective(batch)] == [0.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="are all 0"):
        denoising.Config(weight=0, translation_weight=0)


def test_filling_rows_stay_as_they_are(vocabulary):
    empty = collate.to_batch([], [], np.array([], np.int64), (4, 6, 6))
    objective = made(vocabulary, predict_weight=1.0)
    assert [float(term.total.detach()) for term in objective(empty)] == [0.0, 0.0, 0.0]
    assert torch.equal(noised(empty).source[:, 0], empty.source[:, 0])


def test_a_vocabulary_for_each_side_is_refused(vocabulary):
    apart = SimpleNamespace(joint=False, source_size=90, target_size=90)
    model = made(vocabulary).model
    with pytest.raises(ConfigError, match="needs one vocabulary for both sides"):
        denoising.build(denoising.Config(), model, apart, None)
