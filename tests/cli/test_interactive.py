"""The conversation at a terminal: a prompt, colours, a map, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

from mt.attention_maps.terminal import SHADES

REPOSITORY = Path(__file__).parents[2]

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A pseudo-terminal with `mt translate` behind it."""

    def __init__(self, run, **environment):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "mt", "translate", str(run), "--threads", "1"],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=REPOSITORY, start_new_session=True,
            env={**kept, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(theirs)

    def until(self, done):
        """What appears, until it is as wanted or the program has ended."""
        got = b""
        while not done(got) and select.select([self.ours], [], [], 300)[0]:
            with contextlib.suppress(OSError):  # Linux: the other side has gone
                part = os.read(self.ours, 65536)
                got += part
                continue
            break
        return got

    def prompt(self, after=b""):
        """What appears up to a prompt that waits."""
        return self.until(lambda got: after in got and ESCAPES.sub(b"", got).endswith(b"\n> "))

    def first_prompt(self):
        return self.until(lambda got: ESCAPES.sub(b"", got).endswith(b"> "))

    def type(self, data):
        os.write(self.ours, data)

    def end(self):
        """What it still says, and its exit code."""
        rest = self.until(lambda _: False)
        os.close(self.ours)
        return rest, self.child.wait()


def test_a_line_is_answered_in_colour_with_a_map_and_ctrl_d_ends_it(run):
    terminal = Terminal(run)
    assert b"Ctrl-D" in terminal.first_prompt()
    terminal.type(b"Two dogs play.\n")
    answer = terminal.prompt(b"(-")
    assert b"\x1b[3" in answer  # an untrained model is sure of nothing, in red
    shown = ESCAPES.sub(b"", answer).decode()
    assert set(shown) & set(SHADES[1:])
    terminal.type(b"\xff \x1b[A\n")
    terminal.prompt()
    terminal.type(b"\x04")
    rest, code = terminal.end()
    assert code == 0
    assert b"Traceback" not in rest


def test_ctrl_c_ends_it_without_a_trace_and_no_color_has_none(run):
    terminal = Terminal(run, NO_COLOR="1")
    terminal.first_prompt()
    terminal.type(b"Two dogs play.\n")
    assert not re.search(rb"\x1b\[(3|4|9)[0-9]", terminal.prompt(b"(-"))
    os.kill(terminal.child.pid, signal.SIGINT)
    # A signal between the prompt and the wait for a key is seen with the next key only.
    with contextlib.suppress(OSError):  # it has gone already
        terminal.type(b"\n")
    rest, code = terminal.end()
    assert code == 0
    assert b"Traceback" not in rest
