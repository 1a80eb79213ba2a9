"""Start commands without their imports: fork them from a process that has done these.

A program that a test starts spends seconds on importing torch. `start` begins a server that has
imported everything; `client_script` is a program that asks it for a fork with its own arguments,
environment, working directory and standard streams. The fork runs the real command line. Signals
to the client reach the fork, the client ends as the fork does, and a killed client kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PRELOADED = [
    "mt.cli.main", "mt.training.loop", "mt.compression.distill", "mt.compression.prune",
    "mt.decoding.engines.native", "mt.decoding.engines.ctranslate2", "mt.decoding.worker_pool",
    "mt.models.transformer", "mt.models.rnn", "mt.training.objectives.cross_entropy",
    "mt.training.optimizers.adamw", "mt.decoding.search.beam", "mt.data.sources.demo",
    "mt.export.export", "mt.attention_maps.html", "safetensors.torch", "sentencepiece",
    "sacrebleu", "datasets", "torch.utils.tensorboard", "torch.distributed.fsdp",
    "torch.distributed.run", "torch._dynamo",
]  # fmt: skip

PYTHON = """
import runpy, sys
first, *rest = arguments
sys.argv = ["-c", *rest]
if first == "-c":
    sys.argv = ["-c", *rest[1:]]
    exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__", "__file__": "-c"})
elif first == "-m":
    sys.argv = rest
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = arguments
    sys.path.insert(0, first.rpartition("/")[0])
    runpy.run_path(first, run_name="__main__")
code = 0
"""
"""The program that stands for Python itself: `-c CODE`, `-m MODULE` or a script."""

CLIENT = """#!{python} -S
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
order = json.dumps([{program!r}, sys.argv[1:], os.getcwd(), dict(os.environ), os.getppid()])
socket.send_fds(server, [len(order.encode()).to_bytes(4, "big")], [0, 1, 2])
server.sendall(order.encode())
stream = server.makefile("r")
worker = int(stream.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, frame: os.kill(worker, number))
status = int(stream.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def client_script(path: Path, address: str, program: str) -> None:
    """Write an executable; `program` is Python code that calls `run(arguments)` for its code."""
    text = CLIENT.format(python=sys.executable, address=address, program=program)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@contextlib.contextmanager
def start(folder: Path, modules: Sequence[str] = PRELOADED) -> Iterator[str]:
    """Start a server that has imported the modules; yield the address of its socket."""
    address = str(folder / "server")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "fault_injection")]
    )
    command = [sys.executable, __file__, address, *modules]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield address
        finally:
            server.kill()


# ------------------------------------------------------------------------------ the server


def serve(address: str, modules: Sequence[str]) -> None:
    for name in modules:
        __import__(name)
    if modules == PRELOADED:
        with contextlib.suppress(ImportError):
            import transformers.models.marian.modeling_marian
            import transformers.models.pegasus.modeling_pegasus  # noqa: F401
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            supervise(connection)
        connection.close()


def supervise(connection: socket.socket) -> None:
    """Fork the worker, tell its number and how it ends; kill it when the client has gone."""
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    order = b""
    while len(order) < int.from_bytes(size, "big"):
        order += connection.recv(1 << 16)
    worker = os.fork()
    if worker == 0:
        connection.close()
        work(*json.loads(order), streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{worker}\n".encode())
    ended = os.pidfd_open(worker)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def work(
    program: str, arguments: list[str], folder: str, environment: dict[str, str], parent: int,
    streams: list[int],
) -> None:  # fmt: skip
    """Become the command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, MT_TEST_PARENT=str(parent))
    if "MT_TEST_NAME" in environment:
        Path("/proc/self/comm").write_text(environment["MT_TEST_NAME"])
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = ["mt", *arguments]
    code = 1
    try:
        scope: dict[str, object] = {"arguments": arguments}
        exec(compile(program, "program", "exec"), scope)
        code = int(scope.get("code") or 0)  # type: ignore[call-overload]
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
