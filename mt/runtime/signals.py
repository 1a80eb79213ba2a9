"""Ctrl-C, whenever it comes: never a trace, never lost, and the exit code that a command says.

Python turns SIGINT into KeyboardInterrupt wherever the program happens to be. Within a destructor
that exception is dropped; within the import of a library in C it may come out as another one; what
waits in C may begin to wait just after the signal came and just before anybody looked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from mt.errors import Stopped
from mt.runtime.distributed import World

if TYPE_CHECKING:
    from types import FrameType

INTERRUPT_EXIT_CODE = 130
"""Exit code of what SIGINT stopped."""
POLL_SECONDS = 0.2
"""Seconds after which somebody looks again whether a signal has come."""
_came: list[bool] = []
_dropped: list[bool] = []


def interrupted() -> bool:
    """Whether a Ctrl-C was raised: what fails afterwards fails because of it."""
    return bool(_came)


def exit_on_sigint() -> None:
    """From now on SIGINT ends the process: nothing has begun yet, or all is done."""
    if not _is_ignored():
        signal.signal(signal.SIGINT, _exit_now)


def install() -> None:
    """From now on SIGINT raises KeyboardInterrupt; a second one ends the process."""
    if _is_ignored():
        return
    _came.clear()
    signal.signal(signal.SIGINT, _raise_interrupt)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _raise_dropped)
        sys.unraisablehook = _note_dropped


def _is_ignored() -> bool:
    """Whether the parent ignores SIGINT, as `nohup` does."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _exit_now(number: int = signal.SIGINT, frame: FrameType | None = None) -> NoReturn:
    os.write(2, b"mt: stopped\n")
    os._exit(INTERRUPT_EXIT_CODE)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    if _came:
        _exit_now()
    _came.append(True)
    raise KeyboardInterrupt


def _raise_dropped(number: int, frame: FrameType | None) -> None:
    """SIGALRM came: raise again what was dropped."""
    if _dropped:
        _dropped.clear()
        raise KeyboardInterrupt


def _note_dropped(dropped: sys.UnraisableHookArgs) -> None:
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        _dropped.append(True)
        signal.setitimer(signal.ITIMER_REAL, POLL_SECONDS)  # by then the destructor is through
    else:
        sys.__unraisablehook__(dropped)


@contextlib.contextmanager
def poll_signals() -> Iterator[None]:
    """While inside, what waits in C for input is made to look for signals again and again."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise_dropped)
    signal.setitimer(signal.ITIMER_REAL, POLL_SECONDS, POLL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def block_sigint() -> Iterator[None]:
    """SIGINT that comes while inside is seen after it; a process started inside never sees any."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Whether SIGINT or SIGTERM has come; a second one ends a program of one process at once."""

    number = 0
    """The signal that came to this process."""
    agreed = 0
    """The signal that came to any process, as all knew it at the last step."""

    def __init__(self, world: World) -> None:
        self.world = world

    def handle(self, number: int, frame: object) -> None:
        """Remember the signal."""
        if self.number and self.world.size == 1:  # a launcher may well tell it twice
            raise Stopped(number, "stopped at once, by a second signal; the last save is intact")
        self.number = number


@contextlib.contextmanager
def stop_requests(world: World) -> Iterator[StopRequest]:
    """Listen to SIGINT and SIGTERM while inside."""
    request = StopRequest(world)
    before = {s: signal.signal(s, request.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
