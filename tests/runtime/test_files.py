"""Files are replaced whole, and one process has the lock."""

from __future__ import annotations

import pytest

from mt.errors import MachineError
from mt.runtime import files


def test_a_second_process_cannot_take_the_lock(tmp_path):
    with (
        files.lock(tmp_path / ".lock"),
        pytest.raises(MachineError, match="RUN-LOCKED"),
        files.lock(tmp_path / ".lock"),
    ):
        pass
    with files.lock(tmp_path / ".lock"):
        pass
