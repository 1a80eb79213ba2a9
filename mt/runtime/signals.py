"""SIGINT, SIGTERM and SIGHUP: no traceback, no lost signal, and the right exit code.

Python turns SIGINT into KeyboardInterrupt at any point of the program. A destructor drops that
exception; the import of a C library may turn it into another one; a wait in C may begin just after
the signal came.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn, TypeVar

from mt.errors import Stopped
from mt.runtime.distributed import World

if TYPE_CHECKING:
    from types import FrameType

Result = TypeVar("Result")
POLL_SECONDS = 0.2
"""Seconds after which a lost signal is raised again."""
_came: list[int] = []
_dropped: list[BaseException] = []
_running: list[threading.Thread] = []


def interrupted() -> int:
    """Return the number of the signal that was raised, or 0: later errors are its consequences."""
    return _came[0] if _came else 0


def exit_on_signals() -> None:
    """Make a signal to stop end the process, before any work has begun or when all is done."""
    for number in _own_signals():
        signal.signal(number, _exit_now)


def install() -> None:
    """Make SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP Stopped; a second one exits."""
    _came.clear()
    for number in _own_signals():
        signal.signal(number, _raise_interrupt)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _raise_dropped)
        sys.unraisablehook = _note_dropped


def _own_signals() -> list[int]:
    """Return the signals to stop, but those that the parent ignores, as `nohup` does."""
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [n for n in numbers if n is not None and signal.getsignal(n) is not signal.SIG_IGN]


def _exit_now(number: int, frame: FrameType | None = None) -> NoReturn:
    os.write(2, b"mt: stopped\n")
    os._exit(128 + number)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    if _came:
        _exit_now(number)
    _came.append(number)
    raise _interrupt(number)


def _interrupt(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number, "mt: stopped")


def _raise_dropped(number: int, frame: FrameType | None) -> None:
    """Raise a dropped interrupt again, at SIGALRM."""
    if _dropped:
        raise _dropped.pop()


def _note_dropped(dropped: sys.UnraisableHookArgs) -> None:
    if issubclass(dropped.exc_type, (KeyboardInterrupt, Stopped)):
        _dropped[:] = [_interrupt(interrupted() or signal.SIGINT)]
        signal.setitimer(signal.ITIMER_REAL, POLL_SECONDS)  # the destructor has ended by then
    else:
        sys.__unraisablehook__(dropped)


def run_in_thread(action: Callable[[], Result]) -> Result:
    """Run a long call of C, which must release the GIL, so that signals come at once.

    An exception of a signal leaves the call running; see `has_left_call`.
    """
    result: Future[Result] = Future()

    def work() -> None:
        try:
            result.set_result(action())
        except BaseException as error:
            result.set_exception(error)

    _running[:] = [threading.Thread(target=work, daemon=True)]
    _running[0].start()
    return result.result()


def has_left_call() -> bool:
    """Whether a call of `run_in_thread` is running: it may abort a process that ends normally."""
    return any(thread.is_alive() for thread in _running)


@contextlib.contextmanager
def poll_signals() -> Iterator[None]:
    """Interrupt waits in C regularly, so that Python handles signals."""
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
    """Delay SIGINT to the end of the block; a process started inside never gets it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Whether a signal to stop has come; a second one ends a program of one process at once."""

    number = 0
    """The signal that came to this process."""
    agreed = 0
    """The signal that came to any process, as agreed at the last step."""

    def __init__(self, world: World) -> None:
        self.world = world

    def handle(self, number: int, frame: object) -> None:
        """Remember the signal."""
        if self.number and self.world.size == 1:  # a launcher may send it twice
            raise Stopped(number, "stopped at once, by a second signal; the last save is intact")
        self.number = number


@contextlib.contextmanager
def stop_requests(world: World) -> Iterator[StopRequest]:
    """Record SIGINT, SIGTERM and SIGHUP inside the block.

    One of several processes goes on recording after an error: a launcher stops it within
    milliseconds of another's death, and it must live to report what it saw.
    """
    request = StopRequest(world)
    with _handle_stop_signals(request.handle, keep_after_error=world.size > 1):
        yield request


@contextlib.contextmanager
def raise_on_stop_signals(work: str) -> Iterator[None]:
    """Raise Stopped at a signal to stop, in the main thread; `work` names the block."""
    owner = os.getpid()
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        if os.getpid() == owner:
            received.append(number)
            raise Stopped(number, f"stopped while {work}; nothing was kept of it")
        if number == signal.SIGTERM:  # a worker inherits this handler; its parent ends it
            os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handle_stop_signals(stop):
        yield
        if received:  # it came inside a destructor, whose exceptions Python drops
            raise Stopped(received[0], f"stopped while {work}; what was prepared is kept")


@contextlib.contextmanager
def _handle_stop_signals(
    handler: Callable[[int, object], None], keep_after_error: bool = False
) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # its terminal has gone; nohup ignores it
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        numbers.append(hang_up)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    except BaseException:
        if keep_after_error:
            before = {}
        raise
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
