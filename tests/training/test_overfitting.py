"""Laws of the warning: told once, when a model learns by heart, and not when it learns."""

from __future__ import annotations

import json

import pytest
import yaml
from resumable_run import RECIPE

from mt.config import recipe
from mt.training import loop, overfitting
from mt.training.overfitting import OverfittingState, observe


def followed(losses):
    """The gap after each of some validations (validation loss, loss of training pairs)."""
    gap, found = None, []
    for step, (valid, trained) in enumerate(losses, start=1):
        gap = observe(gap, step, valid, trained)
        found.append(gap)
    return found


FALLING = [(4.0, 3.9), (3.5, 3.3), (3.2, 2.8)]


@pytest.mark.parametrize(
    ("then", "risen"),
    [
        ([(3.3, 2.5), (3.4, 2.2), (3.5, 2.0)], 3),
        ([(3.3, 2.5), (3.4, 2.2)], 2),
        ([(3.21, 2.5), (3.22, 2.2), (3.21, 2.0)], 0),  # within the margin: it has settled
        ([(3.3, 2.9), (3.4, 3.0), (3.5, 3.1)], 0),  # both rise: a rate too high, say
        ([(3.3, 2.5), (3.1, 2.2), (3.5, 2.0)], 1),  # a new lowest one begins anew
        ([(3.3, 2.5), (3.21, 2.2), (3.5, 2.0)], 1),
        ([(float("nan"), 2.5), (3.4, float("inf"))], 0),
    ],
)
def test_only_where_the_losses_part_for_several_validations_is_it_overfitting(then, risen):
    *_, gap = followed([*FALLING, *then])
    assert gap.risen == risen


@pytest.fixture
def settled(tmp_path):
    def made(search=None, training=None, **changes):
        values = json.loads(json.dumps(RECIPE))
        for path, value in changes.items():
            section, _, key = path.partition("__")
            values.setdefault(section, {})[key] = value
        values |= {k: v for k, v in (("search", search), ("training", training)) if v}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return recipe.load(path)[0]

    return made


def test_the_warning_comes_once(settled):
    gap = OverfittingState(valid=3.2, train=2.8, step=600, risen=3)
    told = overfitting.warning(gap, 3.5, 2.0, settled())
    assert told.startswith("mt: warning[OVERFITTING]")
    assert all(part in told for part in ("3.500", "3.200 at step 600", "2.800 to 2.000"))
    known = OverfittingState(**{**vars_of(gap), "told": True})
    assert overfitting.warning(known, 3.5, 2.0, settled()) == ""
    lower = observe(known, 700, 3.1, 1.9)
    assert lower.told
    assert overfitting.warning(OverfittingState(3.2, 2.8, 600, risen=2), 3.5, 2.0, settled()) == ""


def vars_of(gap):
    return {name: getattr(gap, name) for name in OverfittingState.__dataclass_fields__}


def test_what_is_in_use_already_is_not_advised(settled):
    plain = " ".join(overfitting.advice(settled()))
    assert "from 0.1" in plain
    for key in ("model.word_dropout", "sampling", "objective.kind=r_drop", "alignment_weight"):
        assert key in plain
    careful = settled(
        model__word_dropout={"source": 0.1}, objective__kind="r_drop",
        objective__alignment_weight=0.2,
        vocabulary__sampling={"target": {"dropout": 0.1}},
    )  # fmt: skip
    advised = " ".join(overfitting.advice(careful))
    for key in ("word_dropout", "sampling", "r_drop", "alignment", "patience"):
        assert key not in advised


@pytest.mark.parametrize(("size", "overfits"), [(20, True), (700, False)])
def test_a_run_warns_when_it_learns_by_heart(settled, tmp_path, capsys, size, overfits):
    plain = {"kind": "greedy", "max_length_ratio": 0.1, "max_length_extra": 1}
    config = settled(
        data__train=[{"kind": "demo", "size": size}], model__dropout=0.0,
        model__attention_dropout=0.0, model__d_model=32,
        optimizer__learning_rate=2e-2, schedule__kind="constant", search=plain,
        batching__tokens=400,
        training={
            "max_steps": 60, "validate_every": 10, "save_every": 1000, "monitor": "loss",
            "validate_sentences": 1, "samples": 0,
        },
    )  # fmt: skip
    loop.train(config, tmp_path / "run")
    told = capsys.readouterr().err
    assert told.count("warning[OVERFITTING]") == overfits
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [(line["valid_loss"], line["train_loss"]) for line in lines if "valid_loss" in line]
    assert len(losses) == 6
    assert (losses[-1][0] > 1.5 * losses[-1][1]) == overfits
