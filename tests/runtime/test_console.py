"""Lines for the user: on standard error, safe, once where work is repeated, in columns."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mt.runtime import console
from mt.runtime.console import align_columns, print_line, print_lines_once, warn_once


def test_a_line_goes_to_standard_error_and_cannot_steer_the_terminal(capsys):
    print_line("a\x1b[2Jb\nc")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a\\x1b[2Jb\\nc\n"


def test_repeated_work_prints_each_line_once(capsys):
    with print_lines_once():
        for line in ("one", "two", "one"):
            print_line(line)
    print_line("one")
    print_line("one")
    assert capsys.readouterr().err == "one\ntwo\none\none\n"


def test_columns_are_aligned_and_end_without_spaces():
    rows = [["", "MB", "x"], ["long name", "1.5", ""], ["b", "10.25", "2"]]
    lines = list(align_columns(rows))
    assert lines == ["              MB  x", "long name    1.5", "b          10.25  2"]


def test_columns_may_be_aligned_to_the_left():
    rows = [["set", "metric", "score", "by"], ["a", "BLEU", "9.50", "long"]]
    lines = list(align_columns(rows, left=(0, 1, 3)))
    assert lines == ["set  metric  score  by", "a    BLEU     9.50  long"]


def test_a_warning_of_a_kind_comes_once(capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    for path in ("a", "b"):
        warn_once("LOCK", f"{path}: no locks")
    assert capsys.readouterr().err == "mt: warning[LOCK] a: no locks\n"


PROGRAM = """
import os, sys, warnings
from mt.runtime import console
console.protect_standard_streams()
first = os.open(os.devnull, os.O_RDONLY)
assert first > 2, "a file has the number of a standard stream"
for _ in range(3000):
    console.print_line("a line")
warnings.warn("of a library")
sys.stderr.write(f"{os.environ['MY_TOKEN']} of http://me:password@host\\n")
sys.stderr.write("x" * 100_000)
sys.stderr.flush()
sys.exit(7)
"""


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&- >&- <&-", "2>&1 | true", ""])
def test_no_write_to_standard_error_can_fail(redirection):
    command = [sys.executable, "-c", PROGRAM]
    shell = f'set -o pipefail; "$@" {redirection}'
    environment = {**os.environ, "MY_TOKEN": "planted-secret"}
    shell = ["bash", "-c", shell, "bash"]
    done = subprocess.run([*shell, *command], capture_output=True, env=environment)
    assert done.returncode == 7
    assert b"planted" not in done.stdout + done.stderr
    if not redirection:
        assert b"*** of http://***@host\n" in done.stderr
        assert done.stderr.count(b"a line\n") == 3000
