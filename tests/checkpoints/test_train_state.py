"""The state of training is JSON and comes back."""

from __future__ import annotations

import json
from dataclasses import replace

from mt.checkpoints.train_state import TrainState


def test_a_state_is_json_and_comes_back():
    state = TrainState(step=3, best=0.1, scaler={"scale": 65536.0})
    assert TrainState(**json.loads(json.dumps(state.__dict__))) == state
    assert replace(state, step=4) != state
