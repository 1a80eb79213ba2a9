"""A trial of a SentencePiece model in a child process: its C++ code may crash on a hostile file.

On Linux the child is a fork, which takes some milliseconds. Elsewhere a fork beside other threads
is not safe, and the child is another Python, which takes a tenth of a second.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import signal
import subprocess
import sys
import warnings

from mt.errors import ModelError

SECONDS = 60
"""Time after which a child counts as hanging."""
TEXTS = ["", "a", "Ab 1, 23. x", "\u00e4\u4e2d\u2581\U0001f600 \u0e01", "x" * 300]
"""What a trial encodes."""
_CODE = "import sys; from mt.vocabulary import trial; trial.use(sys.stdin.buffer.read())"
_tried: set[bytes] = set()


def use(content: bytes) -> None:
    """Load a model and use all of it once."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    ids = list(range(processor.get_piece_size()))
    processor.id_to_piece(ids)
    processor.decode([[i] for i in ids] + processor.encode(TEXTS))


def mark_sound(content: bytes) -> None:
    """Spare a model the trial, as one that this process has made."""
    _tried.add(hashlib.sha256(content).digest())


def try_model(content: bytes, where: str, advice: str) -> None:
    """Use a model in a child process, once; raise a ModelError when that dies of it."""
    if hashlib.sha256(content).digest() in _tried:
        return
    import sentencepiece  # noqa: F401  (so that a fork need not)

    code = _use_in_fork(content) if sys.platform == "linux" else _use_in_python(content)
    if code < 0 or code > 255:  # by a signal, or an exception of Windows
        what = f"not a SentencePiece model (a process that loads it dies: {code})"
        raise ModelError("VOCAB-DAMAGED", where, what, advice)
    mark_sound(content)


def _use_in_fork(content: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which it does not use
        child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()  # it would report a crash to the terminal
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            use(content)
        finally:
            os._exit(0)  # the parent meets an ordinary exception itself
    with contextlib.suppress(ChildProcessError):  # the parent ignores SIGCHLD
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 0


def _use_in_python(content: bytes) -> int:
    command, silent = [sys.executable, "-P", "-c", _CODE], subprocess.DEVNULL
    try:
        return subprocess.run(
            command, input=content, stdout=silent, stderr=silent, timeout=SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return -signal.SIGTERM
    except OSError:  # there is no such program, as in a frozen one
        return 0
