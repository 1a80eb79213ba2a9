"""Validation: a mean over all pairs, whatever the batches, and translations of the first."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from metric_programs import log_of, section

from mt.config.plugins import dotted_kinds, trust_kinds
from mt.config.schema import EvaluationConfig
from mt.data import collate
from mt.training import validation
from mt.training.validation import Validation, deciding_criterion, validate

CPU = torch.device("cpu")


def validated(run, module=None, stopping=lambda: False):
    module = run.module if module is None else module
    return validate(module, run.data.prepared, run.recipe, CPU, run.translator, stopping)


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
    assert whole == pytest.approx(parts, rel=1e-5, nan_ok=True)
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


def test_any_metric_may_be_monitored_and_less_may_be_better(built):
    run, _ = built
    training = run.recipe.training.model_copy(update={"monitor": "ter"})
    recipe = run.recipe.model_copy(update={"training": training})
    found = validated(replace(run, recipe=recipe))
    criteria = found.criteria("ter")
    assert list(criteria) == ["ter", "chrf", "loss"]
    assert criteria["ter"] == -found.values["valid_ter"] < 0
    assert criteria["loss"] == -found.values["valid_loss"]
    assert "valid_ter" not in validated(run).values


def test_a_program_may_be_monitored(built, tmp_path):
    run, _ = built
    given = section(tmp_path)
    trust_kinds(dotted_kinds(given))
    training = run.recipe.training.model_copy(update={"monitor": "fake"})
    evaluation = EvaluationConfig(metrics=[given])
    recipe = run.recipe.model_copy(update={"training": training, "evaluation": evaluation})
    found = validated(replace(run, recipe=recipe))
    assert found.criteria("fake")["fake"] == found.values["valid_fake"] >= 0
    assert log_of(tmp_path) == ["started", f"batch {len(found.samples)}"]


NAN = math.nan


@pytest.mark.parametrize(
    ("monitor", "before", "after", "decides"),
    [
        ("bleu", (10, 30, 3), (11, 29, 4), "bleu"),
        ("bleu", (10, 30, 3), (9, 31, 2), ""),
        ("bleu", (NAN, 30, 3), (NAN, 31, 4), "chrf"),  # two-word phrases
        ("bleu", (NAN, 30, 3), (NAN, 29, 2), ""),
        ("bleu", (0.5, 30, 3), (NAN, 99, 4), "chrf"),  # short again, after nonsense that was long
        ("bleu", (NAN, 99, 3), (0.5, 30, 2), ""),
        ("bleu", (0, 0, 3), (0, 0, 2), "loss"),
        ("bleu", (10, 30, 3), (10, 30, 3), ""),
        ("bleu", (NAN, NAN, 3), (NAN, NAN, 2), "loss"),
        ("bleu", (NAN, NAN, NAN), (NAN, NAN, NAN), ""),
        ("bleu", None, (NAN, 30, 3), "chrf"),
        ("bleu", None, (NAN, NAN, NAN), ""),
        ("chrf", (10, 30, 3), (9, 31, 4), "chrf"),
        ("chrf", (10, 30, 3), (11, 30, 2), "loss"),
        ("loss", (10, 30, 3), (9, 29, 2), "loss"),
        ("loss", (10, 30, 3), (11, 31, math.inf), ""),
    ],
)
def test_the_first_defined_difference_decides(monitor, before, after, decides):
    def criteria(figures):
        names = ("valid_bleu", "valid_chrf", "valid_loss")
        return Validation(dict(zip(names, figures, strict=True)), [], None).criteria(monitor)

    best = {} if before is None else criteria(before)
    assert deciding_criterion(criteria(after), best) == decides
