"""The machines a run works on: device, precision, threads, and the processes that share it.

With one process every function of this file that speaks of several does nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mt.errors import FailedOnAnotherRank, MachineError, MtError, Stopped

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it takes them for lost."""
EXIT_GRACE_SECONDS = 1.0
"""Seconds by which who lost another process outlives it: the launcher then sees who was first."""
CONNECTION_ERRORS = re.compile(
    r"gloo|nccl|connection|broken pipe|timed out|TCPStore", re.IGNORECASE
)
"""What torch says when another process does not answer; a plain RuntimeError with gloo."""


@dataclass(frozen=True)
class World:
    """The processes of a run: one, unless a launcher such as torchrun began several."""

    rank: int = 0
    """The number of this process among all, from 0."""
    size: int = 1
    """How many processes there are, on all machines."""
    local_rank: int = 0
    """The number of this process on its machine, from 0."""
    local_size: int = 1
    """How many processes this machine has."""
    store: Any = field(default=None, repr=False, compare=False)
    """Where the processes leave word for one another, also after one has failed."""

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
        MachineError: another process is gone.
        FailedOnAnotherRank: another rank has failed and has reported why.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, size, local_rank, local_size = (int(os.environ.get(n, "SIZE" in n)) for n in names)
    if size == 1:
        yield SINGLE
        return
    import torch
    from torch import distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    except (ValueError, RuntimeError) as error:
        advice = "begin them with torchrun; see docs/distributed.md"
        where = f"rank {rank} of {size}"
        raise MachineError("RENDEZVOUS", where, _first_line(error), advice) from None
    world = World(rank, size, local_rank, local_size, PrefixStore("mt", store))
    try:
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


def _first_failure(world: World, error: BaseException) -> BaseException:
    """The error, if this process is the first to fail; else one that needs no words."""
    gone = isinstance(error, RuntimeError) and CONNECTION_ERRORS.search(str(error))
    if gone:
        what = f"another process is gone, or did not answer for {TIMEOUT} ({_first_line(error)})"
        advice = "see what the launcher says of it; the same command goes on from the last save"
        error = MachineError("RANK-LOST", f"rank {world.rank} of {world.size}", what, advice)
    code = error.exit_code if isinstance(error, (MtError, Stopped, FailedOnAnotherRank)) else 1
    mine = f"{world.rank} {code}"
    with contextlib.suppress(RuntimeError):  # the store may be gone, too
        first = world.store.compare_set("failed", "", mine).decode()
        if first != mine:
            error = FailedOnAnotherRank(int(first.split()[1]))
    if gone or isinstance(error, FailedOnAnotherRank):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the launcher hurries those who are left
        time.sleep(EXIT_GRACE_SECONDS)
    return error


def _first_line(error: BaseException) -> str:
    """What torch says first, without the place in its sources and its guesses at a cause."""
    line = (str(error).strip() or "no details").splitlines()[0]
    return re.sub(r"^\[[^]]*\]:? *", "", line).split(". ")[0]


def rank_prefix() -> str:
    """The prefix of an error line that names the rank, where there are several."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"rank {os.environ.get('RANK', 0)}: " if several else ""


def main_first(world: World, name: str, action: Callable[[], Value]) -> Value:
    """What `action` gives, done by the first process of each machine and then by the others.

    All wait for all, as long as it takes: to prepare a large corpus is a matter of hours.
    """
    if world.size == 1:
        return action()
    node = os.environ.get("GROUP_RANK", str(world.rank // world.local_size))
    key = f"{name}/{node}"
    while world.local_rank and not world.store.check([key]):
        if world.store.check(["failed"]):
            raise FailedOnAnotherRank(1)
        time.sleep(0.1)
    value = action()
    world.store.set(key, "done")
    world.store.add(f"{name}/all", 1)
    while world.store.add(f"{name}/all", 0) < world.size:
        if world.store.check(["failed"]):
            raise FailedOnAnotherRank(1)
        time.sleep(0.1)
    return value


# ----------------------------------------------------------------------- speaking together


def barrier(world: World) -> None:
    """Wait until all processes are here."""
    all_reduce_max(world, 0.0)


def all_reduce_max(world: World, *values: float) -> list[float]:
    """The largest of each value over all processes, the same for each of them.

    It goes through the host's memory: no process waits for its device.
    """
    if world.size == 1:
        return list(values)
    import torch
    from torch import distributed

    numbers = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return cast(list[float], numbers.tolist())


def all_reduce_sum(world: World, value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if world.size == 1:
        return value
    from torch import distributed

    value = value.clone()
    distributed.all_reduce(value)
    return value


def all_reduce_counts(world: World, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of each count [] over all processes, in one message."""
    if world.size == 1:
        return dict(counts)
    import torch

    sums = all_reduce_sum(world, torch.stack([count.double() for count in counts.values()]))
    return {name: one.to(counts[name].dtype) for name, one in zip(counts, sums, strict=True)}


def all_gather_json(world: World, value: Value) -> list[Value]:
    """The values of all processes, by rank; whatever JSON can say."""
    if world.size == 1:
        return [value]
    import torch
    from torch import distributed

    raw = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world.size)]
    distributed.all_gather(sizes, torch.tensor([len(raw)]))
    mine = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8)
    mine[: len(raw)] = raw
    parts = [torch.empty_like(mine) for _ in range(world.size)]
    distributed.all_gather(parts, mine)
    return [
        json.loads(bytes(part[: int(size)].tolist()))
        for part, size in zip(parts, sizes, strict=True)
    ]


def from_main(world: World, action: Callable[[], Value]) -> Value:
    """What `action` gives on the first process, which alone does it; whatever JSON can say."""
    value = action() if world.is_main else None
    return cast(Value, all_gather_json(world, value)[0])


def tensors_from_main(world: World, action: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The named tensors on the CPU that `action` gives on the first process, on all."""
    if world.size == 1:
        return action()
    import torch
    from torch import distributed

    tensors = action() if world.is_main else {}
    about = {name: (list(t.shape), str(t.dtype)[6:]) for name, t in tensors.items()}
    for name, (shape, dtype) in from_main(world, lambda: about).items():
        if not world.is_main:
            tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        distributed.broadcast(tensors[name], 0)
    return tensors


# ------------------------------------------------------------------------ sharing the work


def split_micro_batches(micros: Sequence[NDArray[Any]], world: World) -> list[NDArray[Any]]:
    """This process's part of an update's micro-batches, each the rows [B] that it holds.

    Whole ones in rounds; those of a last round that is not full are cut, a row to each process
    in turn. Each process gets the same number, though some may have no rows.
    """
    rounds = len(micros) - len(micros) % world.size
    whole = [micros[i] for i in range(world.rank, rounds, world.size)]
    return whole + [rows[world.rank :: world.size] for rows in micros[rounds:]]


def wrap_ddp(step: nn.Module, world: World) -> nn.Module:
    """`step` as one of equal copies, whose gradients are summed over all processes."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    # Buffers are tables that all have alike. What says so was renamed in torch 2.13.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    copies = DistributedDataParallel(
        step, gradient_as_bucket_view=True, **cast(Any, {buffers: False})
    )
    # Torch's own way would take the mean over processes.
    copies.register_comm_hook(
        None,
        lambda state, bucket: (
            distributed.all_reduce(bucket.buffer(), async_op=True)
            .get_future()
            .then(lambda future: future.value()[0])
        ),
    )
    return copies


def wrap_fsdp(
    step: nn.Module, blocks: Iterable[nn.Module], device: torch.device, world: World
) -> None:
    """Leave in `step` this process's part of each parameter; gradients are summed."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    for part in (*blocks, step):
        sharded = fully_shard(part, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


@contextlib.contextmanager
def gradient_sync(step: nn.Module, last: bool) -> Iterator[None]:
    """Forward and backward in which gradients are summed over processes only if it is the last."""
    with contextlib.ExitStack() as stack:
        if hasattr(step, "no_sync") and not last:
            stack.enter_context(cast(Any, step).no_sync())
        if hasattr(step, "set_requires_gradient_sync"):
            cast(Any, step).set_requires_gradient_sync(last)
        yield


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; other tensors unchanged."""
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor


def distribute_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the device of `other`, and shared out as that is."""
    tensor = tensor.to(other.device)
    if not hasattr(other, "placements") or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    shared = cast(Any, other)
    return distribute_tensor(tensor, shared.device_mesh, shared.placements, src_data_rank=None)
