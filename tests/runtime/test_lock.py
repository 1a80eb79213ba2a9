"""One process has the lock of a folder; without locks the work goes on."""

from __future__ import annotations

import errno

import pytest
from refused_calls import refuse

from mt.errors import MachineError
from mt.runtime import console
from mt.runtime.lock import lock


def test_a_second_process_cannot_take_the_lock(tmp_path):
    with (
        lock(tmp_path / ".lock"),
        pytest.raises(MachineError, match="RUN-LOCKED"),
        lock(tmp_path / ".lock"),
    ):
        pass
    with lock(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_locks_one_warning_is_printed_and_the_work_goes_on(
    tmp_path, number, monkeypatch, capsys
):
    """Lustre, some FUSE and SMB mounts."""
    import fcntl

    monkeypatch.setattr(console, "_warned", set())
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    for _ in range(2):
        with lock(tmp_path / ".lock"):
            pass
    assert capsys.readouterr().err.count("warning[LOCK]") == 1


def test_an_error_within_is_not_one_of_the_lock(tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    with pytest.raises(FileNotFoundError), lock(tmp_path / ".lock"):
        (tmp_path / "none").read_text()
