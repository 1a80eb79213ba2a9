"""A folder that cannot be written, also by root, whom permissions do not stop."""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path


def make_read_only(monkeypatch, folder: Path) -> None:
    """Let everything that writes below a folder fail, as on a read-only file system."""
    top = os.path.realpath(folder)

    def is_inside(path) -> bool:
        if isinstance(path, int):
            return False
        real = os.path.realpath(path)
        return real == top or real.startswith(top + os.sep)

    def guarded(function, writes=lambda *rest, **more: True):
        def call(path, *rest, **more):
            if is_inside(path) and writes(*rest, **more):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            return function(path, *rest, **more)

        return call

    def opens_to_write(mode="r", *rest, **more) -> bool:
        return not set("wax+").isdisjoint(mode)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", guarded(module.open, opens_to_write))
    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    access = os.access
    monkeypatch.setattr(
        os, "access",
        lambda path, mode, **more: access(path, mode) and not (mode & os.W_OK and is_inside(path)),
    )  # fmt: skip
