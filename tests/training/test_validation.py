"""Validation: a mean over all pairs, whatever the batches, and translations of the first."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from mt.data import collate
from mt.training import validation
from mt.training.validation import Validation, validate

CPU = torch.device("cpu")


def validated(run, module=None, stopping=lambda: False):
    module = run.module if module is None else module
    return validate(module, run.data.prepared, run.recipe, CPU, "fp32", stopping)


def test_the_loss_is_the_mean_over_all_target_positions(built):
    run, _ = built
    found = validated(run)
    valid = run.data.prepared.valid
    total = count = 0.0
    with torch.inference_mode():
        for row in range(len(valid)):
            (term,) = run.module(collate.collate_pairs(valid, np.array([row])))
            total, count = total + float(term.total), count + float(term.count)
    assert count == valid.target_lengths.sum()
    assert found.values["valid_loss"] == pytest.approx(total / count, rel=1e-5)
    assert found.values["valid_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_batches_do_not_change_the_loss(built, monkeypatch):
    run, _ = built
    whole = validated(run).values
    monkeypatch.setattr(validation, "PADDED_TOKENS", 60)
    parts = validated(run).values
    assert whole == pytest.approx(parts, rel=1e-5)
    assert whole["train_loss"] > 0


def test_as_many_pairs_are_translated_as_the_recipe_has(built):
    run, _ = built
    found = validated(run)
    count = run.recipe.training.validate_sentences
    pairs = run.data.prepared.valid_pairs[:count]
    assert [sample[:2] for sample in found.samples] == [(p.source, p.target) for p in pairs]
    weights, rows, columns = found.heat_map
    assert weights.shape == (len(rows), len(columns))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(rows)))


def test_a_stop_in_the_middle_gives_nothing(built):
    assert validated(built[0], stopping=lambda: True) is None


def test_the_monitor_is_larger_where_a_model_is_better():
    worse = Validation({"valid_loss": 3.0, "valid_bleu": 10.0, "valid_chrf": 30.0}, [], None)
    better = dataclasses.replace(
        worse, values={"valid_loss": 2.0, "valid_bleu": 11.0, "valid_chrf": 31.0}
    )
    for monitor in ("loss", "bleu", "chrf"):
        assert better.value(monitor) > worse.value(monitor)
