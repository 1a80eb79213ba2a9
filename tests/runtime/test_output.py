"""Output appears whole, where a user points to, and a report of work cannot fail it."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from mt.errors import ConfigError, MachineError
from mt.runtime import console
from mt.runtime.output import open_output, print_report


def write(path, text="new\n"):
    with open_output(path) as out:
        out.write(text)


def test_the_target_of_a_link_is_replaced_and_keeps_its_mode(tmp_path):
    file = tmp_path / "there" / "file.txt"
    file.parent.mkdir()
    file.write_text("old\n")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to("there/file.txt")
    write(link)
    assert link.is_symlink()
    assert file.read_text() == "new\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_dangling_link_gets_its_file(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("file.txt")
    write(link)
    assert (tmp_path / "file.txt").read_text() == "new\n"


def test_an_error_leaves_the_old_file(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("old\n")

    def fail():
        with open_output(file) as out:
            out.write("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert file.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        write(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        write(tmp_path / "none" / "file.txt")


PROGRAM = """
import sys
from pathlib import Path
from mt.runtime import console
from mt.runtime.output import open_output, refuse_existing
print("before", flush=True)
refuse_existing(Path(sys.argv[1]), "")
with open_output(Path(sys.argv[1])) as out:
    out.write("text\\n")
print("after", flush=True)
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
@pytest.mark.parametrize("to_file", [False, True])
def test_an_open_descriptor_is_written_in_place(tmp_path, name, to_file):
    command = [sys.executable, "-c", PROGRAM, name]
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(command, stdout=out if to_file else subprocess.PIPE, check=True)
    found = (tmp_path / "out").read_bytes() if to_file else done.stdout
    assert found == b"before\ntext\nafter\n"


def test_a_device_is_written_in_place():
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_a_full_standard_output_is_an_error_of_the_machine(monkeypatch):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(MachineError, match="No space left"):
            write(None)


@pytest.mark.parametrize("device", ["/dev/full", None])
def test_a_report_that_cannot_be_written_is_dropped_and_the_work_goes_on(monkeypatch, device):
    done = []

    def work():
        for number in range(3):
            done.append(number)
            yield f"line {number}"

    monkeypatch.setattr(console, "discard_output", lambda: None)
    stream = open(device, "w") if device else None  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        print_report(work())
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()
    assert done == [0, 1, 2]


class Stream(io.TextIOWrapper):
    """Standard output that is a terminal, or none."""

    terminal = True

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_no_text_of_a_model_can_steer_a_terminal(monkeypatch, terminal):
    stream = Stream(io.BytesIO(), encoding="utf-8")
    stream.terminal = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    text = "0.5\ta\x1b]0;x\x07\u202eb\r\x9b2Jé\n"
    write(None, text)
    shown = stream.buffer.getvalue().decode("utf-8")
    assert shown == ("0.5\ta\\x1b]0;x\\x07\\u202eb\\r\\x9b2Jé\n" if terminal else text)
    print_report([text.rstrip("\n")])
    assert "\x1b" not in stream.buffer.getvalue().decode("utf-8").removeprefix(shown)
