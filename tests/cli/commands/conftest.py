"""Fixtures of the tests of this folder."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from mt.cli import main


@pytest.fixture
def mt(capsys, monkeypatch):
    """A command in this process: (exit code, standard output, standard error)."""

    def command(*arguments, stdin=b""):
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        more = (
            ["--threads", "1"] if arguments[0] != "average" and "--threads" not in arguments else []
        )
        code = main.run([*map(str, arguments), *more])
        return SimpleNamespace(
            code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True))
        )

    return command
