"""Resolve what a recipe leaves to `auto`: precision, micro-batch size, static shapes, compilation.

The choices are written to `resolved.json` and reused by every resume. The micro-batch size is
found by trying the worst shapes; accumulation keeps the tokens of an update the same.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mt.checkpoints.run_directory import Resolved
from mt.config.recipe import Recipe
from mt.data import collate
from mt.data.batch_sampler import plan_epoch
from mt.data.bucketing import Shape, choose_shapes
from mt.data.corpus import EncodedPairs
from mt.data.training_data import TrainingData
from mt.errors import MachineError
from mt.interfaces import Batch, Objective
from mt.runtime import memory, model_files
from mt.runtime.device import Precision, cpu_has_bf16
from mt.runtime.distributed import World
from mt.special_tokens import END
from mt.training.reporter import Reporter
from mt.training.step import ModelWithLoss, OutOfMemory, accumulate_gradients

RESERVE = 0.1
"""Share of the memory that is left free: for fragments, other shapes and validation."""
MAX_CPU_TOKENS = 6144
"""Most padded tokens on a CPU: larger micro-batches gain nothing and cost memory."""


COMPILED_STEPS = 10_000
"""Updates from which on blocks are compiled on CUDA: it takes about 45 s, and 5 to 8 ms less an
update are derived from the traffic of the memory, not measured."""


class Chosen(Resolved):
    """`resolved.json` of a run that is resumed, which needs what was chosen."""

    threads: Annotated[int, Field(ge=1, le=1024)]
    micro_tokens: Annotated[int, Field(ge=1)]
    compile: bool
    precision: Literal["fp32", "bf16", "fp16"]


def autotune(
    recipe: Recipe, run: Path, module: ModelWithLoss, data: TrainingData, device: torch.device,
    threads: int, report: Reporter, world: World,
) -> dict[str, Any]:  # fmt: skip
    """Choose by trying, or read what an earlier start of the run chose."""
    sharing = {
        "processes": world.size,
        "sharding": "none" if world.size == 1 else recipe.runtime.sharding.replace("none", "ddp"),
    }
    if (run / "resolved.json").exists():
        earlier = model_files.read_json(run / "resolved.json", Chosen)
        asked = sharing if recipe.runtime.threads == "auto" else sharing | {"threads": threads}
        return _reuse(earlier, asked, threads, report)
    compiled, precision = recipe.runtime.compile, recipe.runtime.precision
    if device.type == "cuda":  # the memory that a micro-batch needs depends on it
        if precision == "auto":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        module.precision = precision
    micro_tokens = find_micro_tokens(recipe, module, data.pairs, device)
    if precision == "auto":
        precision = fastest_cpu_precision(recipe, module, data.pairs, micro_tokens)
    return {
        "device": device.type, "threads": threads, "micro_tokens": micro_tokens,
        "shapes": pick_static_shapes(data, micro_tokens, device),
        "compile": pays_to_compile(recipe, data, device) if compiled == "auto" else compiled,
        "precision": precision, **sharing, "torch": torch.__version__,
    }  # fmt: skip


def pays_to_compile(recipe: Recipe, data: TrainingData, device: torch.device) -> bool:
    """Whether a run on a CUDA device is long enough to earn back what compiling takes."""
    if device.type != "cuda":
        return False
    plan, limits = recipe.training, list[float]()
    if plan.max_steps is not None:
        limits.append(plan.max_steps)
    if plan.max_epochs is not None and data.prepared.train is not None:
        tokens = plan.max_epochs * int(data.pairs.target_lengths.sum())
        limits.append(tokens / recipe.batching.tokens)
    return min(limits, default=COMPILED_STEPS) >= COMPILED_STEPS


def _reuse(
    resolved: dict[str, Any], asked: dict[str, Any], threads: int, report: Reporter
) -> dict[str, Any]:
    """Return the earlier choices but for those `asked` for; warn where something differs."""
    resolved = {"processes": 1, "sharding": "none", "shapes": [], **resolved}
    if resolved.get("torch", torch.__version__) != torch.__version__:
        what = f"the run began with torch {resolved['torch']}, this is {torch.__version__}"
        report.log(f"mt: warning[TORCH] {what}: the last bits of its weights may differ")
    changed = [key for key in asked if resolved[key] != asked[key]]
    if not changed:
        return resolved
    what = ", ".join(f"{key} {resolved[key]} -> {asked[key]}" for key in changed)
    other = "other rounding" if changed == ["threads"] else "other dropout and rounding"
    report.log(f"{what}: the same data in the same order, {other}")
    return resolved | {"threads": threads, **asked}


def find_micro_tokens(
    recipe: Recipe, module: ModelWithLoss, corpus: EncodedPairs, device: torch.device
) -> int:
    """Return `batching.micro_tokens`, or the most padded tokens of a pass that fit and help.

    Raises:
        MachineError: not even one pair of the longest sides fits.
    """
    if isinstance(recipe.batching.micro_tokens, int):
        return recipe.batching.micro_tokens
    least = 2 * recipe.data.max_length
    update = max(least, round(2.25 * recipe.batching.tokens))
    if device.type == "cpu":
        return find_cpu_micro_tokens(module, corpus, least, max(least, min(MAX_CPU_TOKENS, update)))
    return find_cuda_micro_tokens(module, corpus, least, update, device)


def worst_batches(corpus: EncodedPairs, tokens: int, device: torch.device) -> list[Batch]:
    """Make full micro-batches of the longest sides of a corpus, and of median ones."""
    sides = corpus.source_lengths, corpus.target_lengths
    shapes = [[int(measure(side)) for side in sides] for measure in (np.max, np.median)]
    return [full_batch(max(1, tokens // (s + t)), s, t, device) for s, t in shapes]


def full_batch(rows: int, source: int, target: int, device: torch.device) -> Batch:
    """Make a micro-batch without padding."""
    ids = torch.full((rows, max(source, target + 1)), END, device=device)
    ones = torch.ones(rows, dtype=torch.int64, device=device)
    return Batch(
        ids[:, :source], ids[:, : target + 1], source * ones, target * ones,
        torch.arange(rows, device=device),
    )  # fmt: skip


def find_cuda_micro_tokens(
    module: ModelWithLoss, corpus: EncodedPairs, least: int, most: int, device: torch.device
) -> int:
    """Find the most padded tokens whose forward and backward pass leave the reserve free."""

    def fits(tokens: int) -> bool:
        return all(fits_in_memory(module, each) for each in worst_batches(corpus, tokens, device))

    tokens = memory.bisect_max(fits, least, most, grain=max(least, most // 32))
    if tokens is None:
        what = f"not even {least} slots (2 * data.max_length) fit in the device's memory"
        raise MachineError("OOM", "data.max_length", what, "lower it, or the sizes of the model")
    return tokens


def fits_in_memory(module: ModelWithLoss, batch: Batch) -> bool:
    """Whether a micro-batch fits beside gradients, optimizer state and a moving average."""
    device = batch.source.device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        rest = torch.empty(3 * parameter_bytes(module), dtype=torch.uint8, device=device)
        no_scaler = torch.amp.GradScaler(device.type, enabled=False)
        before = torch.cuda.memory_allocated(device)
        accumulate_gradients(module, cast(Objective, module.objective), [batch], no_scaler)
        # A captured graph keeps as much to itself as a plain pass needs beside it.
        graph = torch.cuda.max_memory_allocated(device) - before
        del rest
    except (OutOfMemory, torch.OutOfMemoryError):
        return False
    finally:
        module.zero_grad()
    return torch.cuda.max_memory_reserved(device) + graph <= (1 - RESERVE) * room


def parameter_bytes(module: nn.Module) -> int:
    """Return the bytes of all weights."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def find_cpu_micro_tokens(
    module: ModelWithLoss, corpus: EncodedPairs, least: int, most: int
) -> int:
    """Return `most`, or fewer padded tokens where the free memory does not suffice.

    Linux grants more memory than there is and then kills, so a small pass is extrapolated.
    """
    room = memory.available_bytes()
    if room is None:
        return most
    fixed, per_token = state_bytes(module), token_bytes(module, corpus, torch.device("cpu"))
    tokens = most
    while tokens > least and fixed + per_token * tokens > (1 - RESERVE) * room:
        tokens = max(least, tokens // 2)
    return tokens


def state_bytes(model: nn.Module) -> int:
    """Return the bytes of gradients, two moments, an average, and passing copies of them."""
    return 6 * parameter_bytes(model)


def token_bytes(module: ModelWithLoss, corpus: EncodedPairs, device: torch.device) -> float:
    """Return the bytes of a padded token of the longest sides: activations and their gradients."""
    source, target = (int(n.max()) for n in (corpus.source_lengths, corpus.target_lengths))
    return 2 * activation_bytes(module, full_batch(1, source, target, device)) / (source + target)


def activation_bytes(module: ModelWithLoss, batch: Batch) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, without weights."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    module.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        terms = module(batch)
    del terms
    return sum(saved.values())


def pick_static_shapes(data: TrainingData, micro_tokens: int, device: torch.device) -> list[Shape]:
    """Choose a few shapes for a CUDA device, which starts up for each new one; none on a CPU.

    A streamed corpus has none either: its longest pair is unknown. Where epochs
    differ, the shapes fit the longest pair that any epoch can have.
    """
    train = data.prepared.train
    if device.type != "cuda" or train is None:
        return []
    longest = data.variation.max_lengths(train)
    sides = data.pairs.source_lengths, data.pairs.target_lengths
    source, target = (np.append(side, most) for side, most in zip(sides, longest, strict=True))
    return list(choose_shapes(source, target, micro_tokens))


def fastest_cpu_precision(
    recipe: Recipe, module: ModelWithLoss, pairs: EncodedPairs, micro_tokens: int
) -> Precision:
    """Return bf16 where the processor has it and it is measured to be faster; else fp32."""
    if not cpu_has_bf16():
        return "fp32"
    plan = plan_epoch(recipe, pairs, {"micro_tokens": micro_tokens, "shapes": []}, 0)
    batch = collate.collate_pairs(pairs, plan.updates(0)[0][0])
    no_scaler = torch.amp.GradScaler("cpu", enabled=False)
    seconds: dict[Precision, float] = {}
    both: list[Precision] = ["fp32", "bf16"]
    for precision in 3 * both:
        module.precision = precision
        began = time.perf_counter()
        accumulate_gradients(module, cast(Objective, module.objective), [batch], no_scaler)
        took = time.perf_counter() - began
        seconds[precision] = min(took, seconds.get(precision, took))
    module.zero_grad()
    return "bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32"
