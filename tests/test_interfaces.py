"""The shared data types need no torch, and labels are the inputs moved by one."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mt.data import collate
from mt.interfaces import Cursor

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("module", ["mt.interfaces", "mt.decoding.types", "mt.data.pairs"])
def test_interfaces_do_not_import_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_labels_are_the_inputs_moved_by_one():
    batch = collate.to_batch([np.array([70, 3])], [np.array([80, 81, 3])], np.array([0]))
    assert batch.inputs.tolist() == [[2, 80, 81]]
    assert batch.labels.tolist() == [[80, 81, 3]]
    assert batch.labels.shape[1] == int(batch.target_lengths.max())


def test_a_cursor_begins_at_the_first_update_and_does_not_change():
    assert Cursor() == Cursor(epoch=0, window=0, update=0, stream=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Cursor().epoch = 1
