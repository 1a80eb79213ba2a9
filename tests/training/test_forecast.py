"""What follows from the costs of a training."""

import pytest

from mt.config.schema import TrainingConfig
from mt.errors import ConfigError, MachineError
from mt.training import forecast
from mt.training.forecast import Costs

COSTS = Costs(update=2.0, validation=30.0, checkpoint=5.0)


def plan(**values):
    return TrainingConfig(**{"validate_every": 10, "save_every": 5, **values})


def test_the_first_limit_ends_a_training():
    assert forecast.count_updates(plan(max_steps=40), 40, COSTS) == 40
    assert forecast.count_updates(plan(max_steps=40, max_minutes=600), 40, COSTS) == 40
    # Ten updates take 20 s, their validation 30 s and their two checkpoints 10 s.
    assert forecast.count_updates(plan(max_minutes=2), None, COSTS) == 20
    assert forecast.count_updates(plan(max_minutes=2), 7, COSTS) == 7


def test_an_end_that_is_not_known_is_refused():
    forecast.check_end(plan(max_epochs=2), 40)
    forecast.check_end(plan(max_epochs=2, max_minutes=1), None)
    with pytest.raises(ConfigError) as caught:
        forecast.check_end(plan(max_epochs=2), None)
    assert "training.max_epochs" in str(caught.value)


def test_the_time_is_that_of_updates_validations_and_checkpoints():
    assert forecast.training_seconds(plan(max_steps=20), 20, COSTS) == 20 * 2 + 2 * 30 + 4 * 5
    assert forecast.training_seconds(plan(max_steps=21), 21, COSTS) == 21 * 2 + 3 * 30 + 5 * 5


@pytest.mark.parametrize(
    ("saved", "values", "at_end", "most"),
    [
        (1, {"keep_last": 3}, 10, 10),
        (3, {"keep_last": 3}, 30, 30),
        (4, {"keep_last": 3}, 30, 40),
        (9, {"keep_last": 3}, 30, 50),
        (9, {"keep_last": 1, "average": 4}, 42, 62),
    ],
)
def test_the_disk_holds_the_last_checkpoints_the_best_and_the_one_in_writing(
    saved, values, at_end, most
):
    assert forecast.disk_bytes(plan(max_steps=1, **values), saved, 10, 2) == (at_end, most)


@pytest.mark.parametrize(
    ("room", "where"),
    [(99, "model"), (140, "data.max_length"), (299, "batching.micro_tokens")],
)
def test_what_does_not_fit_in_memory_names_the_key_to_lower(room, where):
    sizes = {"fixed": 100.0, "token": 2.0, "tokens": 100, "least": 25}
    with pytest.raises(MachineError) as caught:
        forecast.check_memory(room, **sizes)
    assert caught.value.exit_code == 5
    assert caught.value.problems[0][0] == where
    forecast.check_memory(300, **sizes)
    forecast.check_memory(None, **sizes)


def test_the_size_that_the_advice_names_fits():
    with pytest.raises(MachineError) as caught:
        forecast.check_memory(299, fixed=100.0, token=2.0, tokens=100, least=25)
    assert "from 100 to 99" in caught.value.advice
    forecast.check_memory(299, fixed=100.0, token=2.0, tokens=99, least=25)
