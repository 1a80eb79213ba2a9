"""How large a micro-batch may be: found by trying the worst shapes, once for each machine.

Accumulation keeps the tokens of an update the same, whatever is found here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mt.config.recipe import Recipe, dump
from mt.data import collate
from mt.data.batch_sampler import plan_epoch
from mt.data.bucketing import Shape, choose_shapes
from mt.data.corpus import EncodedPairs
from mt.data.training_data import TrainingData
from mt.errors import MachineError
from mt.interfaces import Batch, Objective
from mt.runtime import files, memory
from mt.runtime.device import Precision, cpu_has_bf16
from mt.runtime.distributed import World
from mt.special_tokens import END
from mt.training import losses
from mt.training.reporter import Reporter
from mt.training.step import ModelWithLoss, OutOfMemory, accumulate_gradients

RESERVE = 0.1
"""Share of a device's memory that is left free: for fragments, other shapes and validation."""
MAX_CPU_TOKENS = 6144
"""Most slots on a CPU, where larger micro-batches gain nothing more, and cost memory."""


def find_micro_tokens(
    recipe: Recipe, step: ModelWithLoss, corpus: EncodedPairs, vocabulary: str, device: torch.device
) -> int:
    """Padded slots of a forward pass: what was asked, or the most that fits and is of use.

    Args:
        step: model and objective, on the device and in the precision that will train.
        vocabulary: the digest of the vocabulary.

    Raises:
        MachineError: not even one pair of the longest sides fits.
    """
    asked = recipe.batching.micro_tokens
    if isinstance(asked, int):
        return asked
    least = 2 * recipe.data.max_length
    update = max(least, round(2.25 * recipe.batching.tokens))
    if device.type == "cpu":
        return find_cpu_micro_tokens(step, corpus, least, max(least, min(MAX_CPU_TOKENS, update)))
    about = {
        "model": dump(recipe)["model"],
        "objective": dump(recipe)["objective"],
        "compile": recipe.runtime.compile,
        "chunk": losses.CHUNK * losses.DEVICE_CHUNKS,
        "free_gib": torch.cuda.mem_get_info(device)[0] >> 30,
        "vocabulary": vocabulary,
        "longest": [int(corpus.source_lengths.max()), int(corpus.target_lengths.max())],
        "range": [least, update],
        "precision": step.precision,
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
    }
    return cached_number(about, lambda: find_cuda_micro_tokens(step, corpus, least, update, device))


def cached_number(about: dict[str, Any], find: Callable[[], int]) -> int:
    """A number found earlier under the same circumstances, from mt's cache; else found now."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = files.cache_folder() / "micro_tokens" / f"{digest[:24]}.json"
    try:
        kept = files.read_json(path)["micro_tokens"]
        if isinstance(kept, int) and kept > 0:
            return kept
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not there, or damaged
    found = find()
    files.make_folder(path.parent)
    files.write_json(path, {**about, "micro_tokens": found})
    return found


def worst_batches(corpus: EncodedPairs, slots: int, device: torch.device) -> list[Batch]:
    """Full micro-batches of the longest sides in a corpus, and of middling ones."""
    shapes = [
        (int(corpus.source_lengths.max()), int(corpus.target_lengths.max())),
        (int(np.median(corpus.source_lengths)), int(np.median(corpus.target_lengths))),
    ]
    return [full_batch(max(1, slots // (s + t)), s, t, device) for s, t in shapes]


def full_batch(rows: int, source: int, target: int, device: torch.device) -> Batch:
    """A micro-batch without any padding."""
    ids = torch.full((rows, max(source, target + 1)), END, device=device)
    ones = torch.ones(rows, dtype=torch.int64, device=device)
    return Batch(
        ids[:, :source], ids[:, : target + 1], source * ones, target * ones,
        torch.arange(rows, device=device),
    )  # fmt: skip


# ------------------------------------------------------------------------------- a device


def find_cuda_micro_tokens(
    step: ModelWithLoss, corpus: EncodedPairs, least: int, most: int, device: torch.device
) -> int:
    """The most slots whose forward and backward pass leave the reserve free on a CUDA device."""

    def fits(slots: int) -> bool:
        return all(fits_in_memory(step, batch) for batch in worst_batches(corpus, slots, device))

    found = memory.bisect_max(fits, least, most, grain=max(least, most // 32))
    if found is None:
        what = f"not even {least} slots (2 * data.max_length) fit in the device's memory"
        raise MachineError("OOM", "data.max_length", what, "lower it, or the sizes of the model")
    return found


def fits_in_memory(step: ModelWithLoss, batch: Batch) -> bool:
    """Whether a micro-batch fits beside gradients, optimizer state and a moving average."""
    device = batch.source.device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        held = torch.empty(3 * parameter_bytes(step), dtype=torch.uint8, device=device)
        no_scaler = torch.amp.GradScaler(device.type, enabled=False)
        before = torch.cuda.memory_allocated(device)
        accumulate_gradients(step, cast(Objective, step.objective), [batch], no_scaler)
        # A captured graph keeps as much to itself as a plain pass needs beside it.
        graph = torch.cuda.max_memory_allocated(device) - before
        del held
    except (OutOfMemory, torch.OutOfMemoryError):
        return False
    finally:
        step.zero_grad()
    return torch.cuda.max_memory_reserved(device) + graph <= (1 - RESERVE) * room


def parameter_bytes(step: nn.Module) -> int:
    """Bytes of all weights."""
    return sum(p.numel() * p.element_size() for p in step.parameters())


# ---------------------------------------------------------------------------------- a CPU


def find_cpu_micro_tokens(step: ModelWithLoss, corpus: EncodedPairs, least: int, most: int) -> int:
    """`most`, or less where the machine's free memory would not hold it.

    Linux grants more memory than there is and then kills: so a small pass is measured, not a
    large one tried.
    """
    room = memory.available_bytes()
    if room is None:
        return most
    source, target = (int(n.max()) for n in (corpus.source_lengths, corpus.target_lengths))
    one = activation_bytes(step, full_batch(1, source, target, torch.device("cpu")))
    # Gradients, two moments, an average and passing copies; each activation's gradient, too.
    fixed, a_slot = 6 * parameter_bytes(step), 2 * one / (source + target)
    slots = most
    while slots > least and fixed + a_slot * slots > (1 - RESERVE) * room:
        slots = max(least, slots // 2)
    return slots


def activation_bytes(step: ModelWithLoss, batch: Batch) -> int:
    """Bytes that the forward pass of a batch keeps for its backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in step.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    step.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        terms = step(batch)
    del terms
    return sum(kept.values())


def autotune(
    recipe: Recipe, run: Path, step: ModelWithLoss, data: TrainingData, device: torch.device,
    threads: int, report: Reporter, world: World,
) -> dict[str, Any]:  # fmt: skip
    """What `auto` means here; chosen once by trying and kept for every resume."""
    sharing = {
        "processes": world.size,
        "sharding": "none" if world.size == 1 else recipe.runtime.sharding.replace("none", "ddp"),
    }
    if (run / "resolved.json").exists():
        kept: dict[str, Any] = {"processes": 1, "sharding": "none", "shapes": []}
        kept |= files.read_json(run / "resolved.json")
        if kept.get("torch", torch.__version__) != torch.__version__:
            what = f"the run began with torch {kept['torch']}, this is {torch.__version__}"
            report.tell(f"mt: warning[TORCH] {what}: the last bits of its weights may differ")
        before = {key: kept[key] for key in sharing}
        if before == sharing:
            return kept
        changed = ", ".join(f"{key} {before[key]} -> {sharing[key]}" for key in sharing)
        report.tell(f"{changed}: the same data in the same order, other dropout and rounding")
        return kept | {"threads": threads, **sharing}
    compiled, precision = recipe.runtime.compile, recipe.runtime.precision
    if device.type == "cuda":  # what fits there depends on it
        step.precision = device_precision() if precision == "auto" else precision
        precision = step.precision
    digest = data.prepared.vocabulary.digest
    micro = find_micro_tokens(recipe, step, data.pairs, digest, device)
    if precision == "auto":
        precision = fastest_precision(recipe, step, data.pairs, micro)
    return {
        "device": device.type,
        "threads": threads,
        "micro_tokens": micro,
        "shapes": pick_static_shapes(data, micro, device),
        "compile": device.type == "cuda" if compiled == "auto" else compiled,
        "precision": precision,
        **sharing,
        "torch": torch.__version__,
    }


def pick_static_shapes(data: TrainingData, micro_tokens: int, device: torch.device) -> list[Shape]:
    """A few shapes for a CUDA device, which starts up for each new one; none on a CPU.

    None for a streamed corpus either: its longest pair is unknown. With subword regularisation
    the shapes fit the longest segmentation that any epoch can have.
    """
    train = data.prepared.train
    if device.type != "cuda" or train is None:
        return []
    longest = (1, 1) if data.regularizer is None else data.regularizer.max_lengths(train)
    sides = data.pairs.source_lengths, data.pairs.target_lengths
    source, target = (np.append(side, most) for side, most in zip(sides, longest, strict=True))
    return list(choose_shapes(source, target, micro_tokens))


def device_precision() -> Precision:
    """bf16 where the CUDA device has it, else fp32."""
    return "bf16" if torch.cuda.is_bf16_supported() else "fp32"


def fastest_precision(
    recipe: Recipe, step: ModelWithLoss, pairs: EncodedPairs, micro: int
) -> Precision:
    """On a CPU: bf16 where the hardware has it and it is measured to win; else fp32."""
    if not cpu_has_bf16():
        return "fp32"
    epoch = plan_epoch(recipe, pairs, {"micro_tokens": micro, "shapes": []}, 0)
    batch = collate.collate_pairs(pairs, epoch.updates(0)[0][0])
    no_scaler = torch.amp.GradScaler("cpu", enabled=False)
    seconds: dict[Precision, float] = {}
    tried: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in (*tried, *tried, *tried):
        step.precision = precision
        began = time.perf_counter()
        accumulate_gradients(step, cast(Objective, step.objective), [batch], no_scaler)
        took = time.perf_counter() - began
        seconds[precision] = min(took, seconds.get(precision, took))
    step.zero_grad()
    return "bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32"
