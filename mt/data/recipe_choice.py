"""Choose the sizes, the regularisation and the length of a training for a corpus and a machine.

docs/data.md has the rules in words, and the trainings that they were fitted on.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from mt.data.held_out_split import CorpusFacts

PIECES_A_WORD = 1.4
"""Of a subword vocabulary in a language with spaces; the end of the sentence is one more."""
UTILISATION = 0.4
"""Training speed as a share of that of bare products of matrices, on a CPU and on a GPU."""
PATIENCE = 4
"""Times the usual length of a training, if the user names none, that a better model may take."""
UPDATES_AN_EPOCH = 150
"""Aimed at when the size of a batch is chosen."""


class Size(NamedTuple):
    """Sizes of a Transformer, for corpora of at least so many pairs."""

    pairs: int
    d_model: int
    n_heads: int
    d_ff: int
    layers: int
    learning_rate: float


CPU_SIZES = (
    Size(0, 128, 4, 512, 3, 4e-3),
    Size(20_000, 256, 4, 1024, 3, 2e-3),
)
GPU_SIZES = (
    Size(0, 256, 4, 1024, 3, 2e-3),
    Size(100_000, 512, 8, 1024, 6, 1e-3),
    Size(2_000_000, 512, 8, 2048, 6, 1e-3),
    Size(20_000_000, 1024, 16, 4096, 6, 5e-4),
)


class ForPairs(NamedTuple):
    """What suits corpora of fewer than so many pairs."""

    below: float
    vocabulary: int
    dropout: float
    bpe_dropout: float
    """Used where half of the epochs fit into the time: it makes learning slow."""
    alignment_weight: float
    epochs: int


BY_PAIRS = (
    ForPairs(5_000, 4_000, 0.3, 0.0, 0.2, 60),
    ForPairs(20_000, 8_000, 0.3, 0.1, 0.2, 80),
    ForPairs(100_000, 8_000, 0.3, 0.1, 0.2, 40),
    ForPairs(500_000, 8_000, 0.2, 0.05, 0.0, 30),
    ForPairs(5_000_000, 16_000, 0.1, 0.0, 0.0, 20),
    ForPairs(math.inf, 32_000, 0.1, 0.0, 0.0, 8),
)


@dataclass(frozen=True)
class Machine:
    """What trains."""

    name: str
    """In words, for a comment."""
    is_gpu: bool
    flops: float
    """Floating-point operations a second of products of matrices, in the best precision."""
    minutes: float
    """How long a training should take."""
    most_minutes: float = 0.0
    """How long it may take rather than end before half of the epochs that suit the corpus."""


def measure_machine(minutes: float | None) -> Machine:
    """Measure how fast the machine multiplies matrices, in some tenths of a second.

    Of a CPU one thread is measured, since other processes may use the other cores now.
    """
    import torch

    from mt.runtime import device

    found = device.pick_device("auto")
    if found.type == "cuda":
        speed = _products_per_second(torch.device(found), torch.bfloat16, 1 << 15)
        name = torch.cuda.get_device_name(found)
        return Machine(name, True, speed, minutes or 120.0, minutes or 120.0 * PATIENCE)
    bf16, cores = device.cpu_has_bf16(), device.physical_cores()
    torch.set_num_threads(1)
    speed = _products_per_second(found, torch.bfloat16 if bf16 else torch.float32, 3072)
    name = f"{cores} CPU cores" + (" with bf16" if bf16 else "")
    return Machine(name, False, cores * speed, minutes or 30.0, minutes or 30.0 * PATIENCE)


def _products_per_second(device: Any, kind: Any, rows: int) -> float:
    """Return the floating-point operations a second of a linear layer, the best of some."""
    import torch

    x = torch.ones(rows, 256, dtype=kind, device=device)
    weight = torch.ones(1024, 256, dtype=kind, device=device)
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        product = torch.nn.functional.linear(x, weight)
        float(product[0, 0])  # waits for a device
        best = min(best, time.perf_counter() - began)
    return 2 * x.numel() * len(weight) / best


class Choice(NamedTuple):
    """All that the rules choose."""

    size: Size
    rules: ForPairs
    batch: int
    """Target tokens an update."""
    epochs: int
    updates: int
    minutes: int
    """How long it is likely to take, rounded up."""
    max_length: int
    """Of a sentence, in pieces."""

    @property
    def warmup(self) -> int:
        """Updates in which the learning rate rises."""
        return max(20, min(500, self.updates // 12))

    @property
    def validate_every(self) -> int:
        """Updates between validations, of which there are about 15."""
        return max(50, min(1000, self.updates // 15 // 50 * 50))

    @property
    def ema(self) -> float:
        """Decay of the moving average: over some hundred updates, or some thousand."""
        return 0.999 if self.updates > 4000 else 0.995


def choose(facts: CorpusFacts, machine: Machine) -> Choice:
    """Choose sizes, regularisation and length of training."""
    pairs = max(1, facts.kept)
    sizes = GPU_SIZES if machine.is_gpu else CPU_SIZES
    size = next(size for size in reversed(sizes) if pairs >= size.pairs)
    rules = next(rules for rules in BY_PAIRS if pairs < rules.below)
    source, target = (PIECES_A_WORD * words + 1 for words in facts.words)
    tokens = pairs * target
    d, f = size.d_model, size.d_ff
    encoder = (4 * d * d + 2 * d * f) * size.layers * source / target
    decoder = (8 * d * d + 2 * d * f) * size.layers + rules.vocabulary * d
    seconds = tokens * 6 * (encoder + decoder) / (UTILISATION * machine.flops)  # an epoch
    half = min(rules.epochs // 2, int(60 * machine.most_minutes / seconds))
    epochs = max(1, min(rules.epochs, max(half, int(60 * machine.minutes / seconds))))
    if epochs < rules.epochs // 2:
        rules = rules._replace(bpe_dropout=0.0)
    most = 16384 if machine.is_gpu else 4096
    batch = 1 << int(math.log2(min(most, max(1024, tokens / UPDATES_AN_EPOCH))))
    updates = math.ceil(tokens / batch) * epochs
    longest = 1 << math.ceil(math.log2(2 * PIECES_A_WORD * facts.longest + 2))
    return Choice(
        size, rules, batch, epochs, updates, math.ceil(seconds * epochs / 60),
        min(256, max(64, longest)),
    )  # fmt: skip
