"""The processes of a run: joining, collectives and FSDP2; of no effect with one process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mt.errors import ConfigError, FailedOnAnotherRank, MachineError, MtError, Stopped
from mt.runtime import console

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=10)
"""Time after which a process that does not answer counts as lost."""
NOTICE_SECONDS = 5.0
"""Seconds of waiting for the other processes before this one says so."""
EXIT_GRACE_SECONDS = 1.0
"""Seconds that other ranks outlive a failed one: the launcher then sees which failed first."""
CONNECTION_ERRORS = re.compile("gloo|nccl|connection|broken pipe|timed out|TCPStore", re.IGNORECASE)
"""In the RuntimeError of torch when another process does not answer."""


@dataclass(frozen=True)
class World:
    """The processes of a run: one, unless a launcher such as torchrun began several."""

    rank: int = 0
    size: int = 1
    """Processes on all machines."""
    local_rank: int = 0
    """The rank of this process on its machine."""
    local_size: int = 1
    """Processes on this machine."""
    store: Any = field(default=None, repr=False, compare=False)
    """Shared keys and values, which survive the failure of a process."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0


SINGLE = World()


# ---------------------------------------------------------------------- joining and parting


@contextlib.contextmanager
def join_processes() -> Iterator[World]:
    """Join the process group of a launcher; leave it at the end.

    The rank that fails first reports its error; the others exit silently with its exit code.
    When a rank is killed, the first other rank that misses it reports RANK-LOST.

    Raises:
        ConfigError: a variable of the launcher is no number.
        MachineError: another process is gone.
        FailedOnAnotherRank: another rank has failed and has reported why.
    """
    rank, size, local_rank, local_size = read_launcher_variables()
    if size == 1:
        yield SINGLE
        return
    import torch
    from torch import distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    with _say_while_waiting(rank, size):
        try:
            store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        except (ValueError, RuntimeError) as error:
            advice = "begin them with torchrun; see docs/distributed.md"
            where = f"rank {rank} of {size}"
            raise MachineError("RENDEZVOUS", where, _first_line(error), advice) from None
    world = World(rank, size, local_rank, local_size, PrefixStore("mt", store))
    try:
        with _say_while_waiting(rank, size):
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=store, rank=rank, world_size=size, timeout=TIMEOUT,
            )  # fmt: skip
        yield world
        barrier(world)
    except (Exception, Stopped) as error:
        reported = _first_failure(world, error)
        if reported is error:
            raise
        raise reported from error
    distributed.destroy_process_group()


def read_launcher_variables() -> tuple[int, int, int, int]:
    """Return rank, world size, and both within the machine; empty variables are unset.

    Raises:
        ConfigError: a variable is no number, or a number that cannot be.
    """
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # torch reads these
        if not os.environ.get(name, "-").strip():
            del os.environ[name]
    size = _launcher_number("WORLD_SIZE", 1, 1, 10**6)
    local_size = _launcher_number("LOCAL_WORLD_SIZE", 1, 1, 10**6)
    rank = _launcher_number("RANK", 0, 0, size - 1)
    local_rank = _launcher_number("LOCAL_RANK", 0, 0, 10**6)
    if size > 1:
        _launcher_number("MASTER_PORT", 0, 0, 65535)
    return rank, size, local_rank, local_size


def _launcher_number(name: str, default: int, least: int, most: int) -> int:
    """Return an environment variable as a number; the default when it is unset or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"-?[0-9]{1,9}", text) or not least <= int(text) <= most:
        what = f"the environment variable is {text!r}, not a number from {least} to {most}"
        advice = f"unset {name}, or begin the processes with torchrun; see docs/distributed.md"
        raise ConfigError("LAUNCHER", name, what, advice)
    return int(text)


def several_processes() -> bool:
    """Whether a launcher says that there are several processes."""
    return os.environ.get("WORLD_SIZE", "").strip() not in ("", "1")


@contextlib.contextmanager
def _say_while_waiting(rank: int, size: int) -> Iterator[None]:
    """Say what this process waits for, if that takes more than some seconds."""
    place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    others = "the other process" if size == 2 else f"the other {size - 1} processes"
    what = f"mt: rank {rank} of {size} waits for {others} at {place}, {TIMEOUT} at most"
    timer = threading.Timer(NOTICE_SECONDS, console.print_line, [what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _first_failure(world: World, error: BaseException) -> BaseException:
    """Return the error if this process is the first to fail, else FailedOnAnotherRank."""
    gone = isinstance(error, RuntimeError) and CONNECTION_ERRORS.search(str(error))
    if gone:
        what = f"another process is gone, or did not answer for {TIMEOUT} ({_first_line(error)})"
        advice = "see what the launcher says of it; the same command goes on from the last save"
        error = MachineError("RANK-LOST", f"rank {world.rank} of {world.size}", what, advice)
    code = error.exit_code if isinstance(error, (MtError, Stopped, FailedOnAnotherRank)) else 1
    own = f"{world.rank} {code}"
    with contextlib.suppress(RuntimeError):  # the store may be gone, too
        first = world.store.compare_set("failed", "", own).decode()
        if first != own:
            error = FailedOnAnotherRank(int(first.split()[1]))
    if gone or isinstance(error, FailedOnAnotherRank):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the launcher stops the other processes
        time.sleep(EXIT_GRACE_SECONDS)
    return error


def _first_line(error: BaseException) -> str:
    """Return the first sentence of an error of torch, without the place in its sources."""
    line = (str(error).strip() or "no details").splitlines()[0]
    return re.sub(r"^\[[^]]*\]:? *", "", line).split(". ")[0]


def rank_prefix() -> str:
    """Return a prefix for error lines that names the rank, where there are several."""
    return f"rank {os.environ.get('RANK') or 0}: " if several_processes() else ""


def main_first(world: World, name: str, action: Callable[[], Value]) -> Value:
    """Return the result of `action`, run by the first process of each machine, then the others.

    All wait without a time limit: preparing a large corpus takes hours.
    """
    if world.size == 1:
        return action()
    node = os.environ.get("GROUP_RANK") or str(world.rank // world.local_size)
    if world.local_rank:
        _wait_for(world, f"{name}/{node}")
    value = action()
    world.store.set(f"{name}/{node}", "done")
    if world.store.add(f"{name}/count", 1) == world.size:
        world.store.set(f"{name}/all", "done")
    _wait_for(world, f"{name}/all")
    return value


def _wait_for(world: World, key: str) -> None:
    """Wait until a key is set; raise FailedOnAnotherRank as soon as a process has failed."""
    while not world.store.check([key]):
        if world.store.check(["failed"]):
            raise FailedOnAnotherRank(1)
        time.sleep(0.1)


# ----------------------------------------------------------------------- speaking together


def barrier(world: World) -> None:
    """Wait for all processes."""
    all_reduce_max(world, 0.0)


def all_reduce_max(world: World, *values: float) -> list[float]:
    """Return the largest of each value over all processes, without waiting for a device."""
    if world.size == 1:
        return list(values)
    import torch
    from torch import distributed

    numbers = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return cast(list[float], numbers.tolist())


def all_reduce_sum(world: World, value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if world.size == 1:
        return value
    value = value.clone()
    sum_in_place(world, value)
    return value


def sum_in_place(world: World, tensor: Tensor) -> None:
    """Replace a tensor by its sum over all processes, in the order of its device's queue."""
    if world.size > 1:
        from torch import distributed

        distributed.all_reduce(tensor)


def broadcast_weights(world: World, module: nn.Module) -> None:
    """Give all processes the weights of rank 0: other processors may draw other last bits."""
    if world.size > 1:
        from torch import distributed

        for parameter in module.parameters():
            distributed.broadcast(parameter.detach(), 0)


def all_reduce_counts(world: World, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum of each count [] over all processes, in one message."""
    if world.size == 1:
        return dict(counts)
    import torch

    sums = all_reduce_sum(world, torch.stack([count.double() for count in counts.values()]))
    return {name: one.to(counts[name].dtype) for name, one in zip(counts, sums, strict=True)}


def all_gather_json(world: World, value: Value) -> list[Value]:
    """Return the JSON values of all processes, by rank."""
    if world.size == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world.size
    distributed.all_gather_object(values, value)
    return values


def from_main(world: World, action: Callable[[], Value]) -> Value:
    """Run `action` on rank 0 and return its JSON value on all ranks."""
    value = action() if world.is_main else None
    return cast(Value, all_gather_json(world, value)[0])


def tensors_from_main(world: World, action: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Run `action` on rank 0 and return its named CPU tensors on all ranks."""
    if world.size == 1:
        return action()
    import torch
    from torch import distributed

    tensors = action() if world.is_main else {}
    types = {name: (list(t.shape), str(t.dtype)[6:]) for name, t in tensors.items()}
    for name, (shape, dtype) in from_main(world, lambda: types).items():
        if not world.is_main:
            tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        distributed.broadcast(tensors[name], 0)
    return tensors


# ------------------------------------------------------------------------ sharing the work


def split_micro_batches(micro_batches: Sequence[NDArray[Any]], world: World) -> list[NDArray[Any]]:
    """Return this rank's part of the micro-batches of an update, each an array of rows [B].

    Ranks take whole ones in turn; those of a last round that is not full are split by rows. Each
    rank gets the same number, some perhaps without rows.
    """
    rounds = len(micro_batches) - len(micro_batches) % world.size
    whole = [micro_batches[i] for i in range(world.rank, rounds, world.size)]
    return whole + [rows[world.rank :: world.size] for rows in micro_batches[rounds:]]


def wrap_fsdp(
    module: nn.Module, blocks: Iterable[nn.Module], device: torch.device, world: World
) -> None:
    """Leave in a module this rank's part of each parameter; gradients are summed."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    for part in (*blocks, module):
        sharded = fully_shard(part, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def sum_shards_in_pass(module: nn.Module, last: bool) -> None:
    """Let FSDP sum gradients over processes in the next pass only when it is the `last` one."""
    if hasattr(module, "set_requires_gradient_sync"):
        cast(Any, module).set_requires_gradient_sync(last)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the whole of a sharded tensor; other tensors unchanged."""
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor; other tensors unchanged."""
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor


def distribute_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a whole tensor on the device of `other`, sharded as `other` is."""
    tensor = tensor.to(other.device)
    if not hasattr(other, "placements") or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like = cast(Any, other)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
