"""The time left is what then happens, also where validations and checkpoints take most of it."""

import pytest

from mt.config.schema import TrainingConfig
from mt.training.time_left import TimeLeft, count_tasks

UPDATE, VALIDATION, CHECKPOINT = 2.0, 70.0, 11.0


def train(plan, last, first=0, before=0.0, update=lambda step: UPDATE):
    """Run the tasks of a loop by a clock that only they move: estimates by step, and the end."""
    now = 1000.0
    left = TimeLeft(plan, last, clock=lambda: now)
    left.begin(first, now - before)
    estimates = {}
    for step in range(first + 1, last + 1):
        now += update(step)
        if step % plan.report_every == 0:
            estimates[step] = (now, left.estimate(step))
        if step % plan.validate_every == 0 or step == last:
            with left.measure("validation"):
                now += VALIDATION
        if step % plan.validate_every == 0 or step % plan.save_every == 0 or step == last:
            with left.measure("checkpoint"):
                now += CHECKPOINT
    return estimates, now


@pytest.mark.parametrize(
    ("validate_every", "save_every", "first", "last"),
    [(10, 10, 0, 60), (10, 15, 0, 60), (10, 15, 7, 64), (20, 5, 40, 100)],
)
def test_it_counts_the_tasks_to_come(validate_every, save_every, first, last):
    plan = TrainingConfig(
        max_steps=last, validate_every=validate_every, save_every=save_every, report_every=5
    )
    estimates, end = train(plan, last, first)
    told = [step for step, (_, (_, whole)) in estimates.items() if whole]
    measured = (first // validate_every + 1) * validate_every
    assert told == [step for step in estimates if step > measured]
    for step in told:
        now, (seconds, _) = estimates[step]
        assert seconds == pytest.approx(end - now), step


def test_it_says_when_a_validation_was_never_measured():
    plan = TrainingConfig(max_steps=30, validate_every=20, save_every=20, report_every=10)
    estimates, _ = train(plan, 30)
    assert [whole for _, (_, whole) in estimates.values()] == [False, False, True]
    assert estimates[10][1] == (20 * UPDATE, False)


def test_it_follows_a_machine_that_becomes_slower():
    plan = TrainingConfig(max_steps=1000, validate_every=2000, save_every=2000, report_every=5)
    estimates, end = train(plan, 1000, update=lambda step: 1.0 if step <= 500 else 3.0)
    now, (seconds, _) = estimates[700]
    assert seconds == pytest.approx(end - now - VALIDATION - CHECKPOINT)


def test_minutes_end_a_run_before_its_updates():
    plan = TrainingConfig(max_steps=10_000, max_minutes=5, report_every=10)
    estimates, _ = train(plan, 200, before=100.0)
    assert estimates[50][1] == (5 * 60 - 100.0 - 50 * UPDATE, True)
    left = TimeLeft(TrainingConfig(max_epochs=2), None)
    assert left.estimate(7) is None


@pytest.mark.parametrize("average", [0, 3])
@pytest.mark.parametrize(("validate_every", "save_every"), [(1, 7), (6, 4), (5, 5), (100, 100)])
@pytest.mark.parametrize("last", [1, 29, 60])
def test_tasks_are_those_of_the_loop(validate_every, save_every, last, average):
    plan = TrainingConfig(
        max_steps=last, validate_every=validate_every, save_every=save_every, average=average
    )
    for first in range(1, last + 1):
        rest = range(first, last + 1)
        validated = {step for step in rest if step % validate_every == 0 or step == last}
        saved = validated | {step for step in rest if step % save_every == 0}
        assert count_tasks(plan, first, last) == {
            "validation": len(validated) + bool(average),
            "checkpoint": len(saved),
        }
