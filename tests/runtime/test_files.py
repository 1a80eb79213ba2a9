"""Files are replaced whole, and one process has the lock."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from refused_calls import refuse

from mt.errors import DataError, MachineError
from mt.runtime import console, files
from mt.runtime.lock import lock


def write_half(path):
    """Begin to replace a file, and meet a full disk."""
    with files.staged(path) as hidden:
        hidden.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(MachineError, match="DISK-FULL"):
        write_half(path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with files.staged(path) as hidden:
        hidden.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_an_old_folder_is_there_when_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    final, rename = tmp_path / "folder", Path.rename
    final.mkdir()
    (final / "old").write_text("x")

    def refuse_new(path, target):
        if path.name.startswith(".tmp-"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    def replace():
        with files.staged(final) as hidden:
            hidden.mkdir()
            (hidden / "new").write_text("x")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse_new)
        with pytest.raises(MachineError, match="Input/output error"):
            replace()
    assert [each.name for each in final.iterdir()] == ["old"]
    replace()
    assert [each.name for each in final.iterdir()] == ["new"]
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_another_process_wrote_meanwhile_is_kept(tmp_path):
    final = tmp_path / "sub" / "folder"
    with files.staged_folder(final) as hidden:
        (hidden / "ours").write_text("x")
        final.mkdir()
        (final / "theirs").write_text("x")
    assert [each.name for each in final.iterdir()] == ["theirs"]
    assert [each.name for each in final.parent.iterdir()] == ["folder"]


def test_a_second_lock_names_the_process_that_has_it(tmp_path):
    with (
        lock(tmp_path / ".lock"),
        pytest.raises(MachineError, match=f"in use by process {os.getpid()} on "),
        lock(tmp_path / ".lock"),
    ):
        pass
    with lock(tmp_path / ".lock"):  # it is free again
        pass


def test_a_line_after_a_torn_one_begins_a_line(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"whole\ntorn")
    files.append_line(log, "next")
    assert log.read_bytes() == b"whole\ntorn\nnext\n"


def test_what_a_killed_process_left_is_deleted_and_nothing_else(tmp_path):
    for name in (".tmp-a-1", ".trash-b-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("x")
    (tmp_path / "kept").write_text("x")
    files.delete_leftovers(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_the_hash_of_a_value_does_not_depend_on_the_order_of_its_keys():
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert files.digest_json(one) == files.digest_json(other)
    assert files.digest_json(one) != files.digest_json({**one, "a": 2})


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_without_fsync_one_warning_is_printed_and_the_file_is_written(
    tmp_path, number, monkeypatch, capsys
):
    monkeypatch.setattr(console, "_warned", set())
    monkeypatch.setattr(os, "fsync", refuse(number))
    files.write_file(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"
    assert capsys.readouterr().err.count("warning[FSYNC]") == 1


def test_an_fsync_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(MachineError, match="DISK"):
        files.write_file(tmp_path / "a", "text")


class RustError(Exception):
    """As of safetensors: the system's error is in its text only."""


FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


def chained(cause):
    error = RuntimeError("cannot save")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x"), RustError(FULL),
        OSError("[Errno 28] Error writing file"), chained(OSError(errno.ENOSPC, "x")),
        chained(chained(RustError(FULL))), RuntimeError("write: Disk quota exceeded"),
    ],
)  # fmt: skip
def test_a_full_disk_is_recognised_in_the_errors_of_libraries(error, tmp_path):
    with pytest.raises(MachineError) as found, files.os_errors_as_mt_errors(tmp_path / "out"):
        raise error
    assert found.value.code == "DISK-FULL"
    assert found.value.exit_code == 5
    assert str(tmp_path / "out") in str(found.value)


@pytest.mark.parametrize("error", [KeyError("x"), RustError("x"), DataError("A", "b", FULL, "d")])
def test_other_errors_come_through(error, tmp_path):
    with pytest.raises(type(error)) as found, files.os_errors_as_mt_errors(tmp_path):
        raise error
    assert found.value is error
