"""Training speed of mt beside a plain torch.nn.Transformer loop, on the same batches, in turn.

    python scripts/bench/training.py configs/demo.yaml --updates 8 --rounds 5

Both train the model of the recipe with dropout wherever torch's has it (attention weights,
feed-forward, residuals, embeddings), on the same micro-batches in the same order. What counts
are real target tokens a second; padding is not counted. Standard output is a Markdown table.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt import batching, distributed, recipe
from mt.config import plugin
from mt.contracts import PAD, Batch, Objective
from mt.layers import sinusoids
from mt.prepare import Prepared, prepare
from mt.step import TrainStep, backward


class Plain(nn.Module):
    """What anyone would write first: padded batches, torch's layers, all logits, fp32."""

    def __init__(self, config: Any, size: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, config.d_model, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.transformer = nn.Transformer(
            config.d_model, config.n_heads, config.encoder_layers, config.decoder_layers,
            config.d_ff, dropout, config.activation, batch_first=True,
            norm_first=config.norm == "pre",
        )  # fmt: skip
        self.drop = nn.Dropout(dropout)
        self.scale = math.sqrt(config.d_model)
        self.register_buffer("table", sinusoids(1024, config.d_model))

    def embed(self, ids: Tensor) -> Tensor:
        return self.drop(self.embedding(ids) * self.scale + self.table[: ids.size(1)])

    def forward(self, batch: Batch) -> Tensor:
        ignored = batch.source == PAD
        width = batch.inputs.size(1)
        future = torch.ones(width, width, dtype=torch.bool).triu(1)
        hidden = self.transformer(
            self.embed(batch.source), self.embed(batch.inputs), tgt_mask=future,
            src_key_padding_mask=ignored, memory_key_padding_mask=ignored, tgt_is_causal=True,
        )  # fmt: skip
        logits = F.linear(hidden, self.embedding.weight)
        return F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD,
            label_smoothing=0.1, reduction="sum",
        )  # fmt: skip


class PlainLoop:
    """The plain side."""

    def __init__(self, settings: recipe.Recipe, prepared: Prepared) -> None:
        size = prepared.vocabulary.target_size
        self.model = Plain(settings.model, size, cast(Any, settings.model).dropout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, (0.9, 0.98), 1e-9)

    def update(self, batches: list[Batch]) -> None:
        tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
        for batch in batches:
            (self.model(batch) / tokens).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class OurLoop:
    """mt's side: the parts of mt/train.py's update."""

    def __init__(
        self, settings: recipe.Recipe, prepared: Prepared, precision: distributed.Precision
    ) -> None:
        dropout = cast(Any, settings.model).dropout
        everywhere = {"attention_dropout": dropout, "activation_dropout": dropout}
        config = settings.model.model_copy(update=everywhere)
        model = plugin("models", config.kind).build(config, prepared.vocabulary)
        kind = settings.objective.kind
        objective = plugin("objectives", kind).build(
            settings.objective, model, prepared.vocabulary, None
        )
        self.step = TrainStep(model, objective, precision)
        kind = settings.optimizer.kind
        self.optimizer = plugin("optimizers", kind).build(
            settings.optimizer, list(self.step.named_parameters())
        )
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def update(self, batches: list[Batch]) -> None:
        backward(self.step, cast(Objective, self.step.objective), batches, self.scaler)
        nn.utils.clip_grad_norm_(self.step.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> None:
    """Time the sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/demo.yaml"))
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--updates", type=int, default=8, help="updates a round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    settings, _ = recipe.load(given.config, given.sets)
    threads = distributed.use_threads(settings.runtime.threads)
    torch.manual_seed(1)
    prepared = prepare(settings, lambda line: None)
    sides: dict[str, Any] = {
        "plain torch.nn.Transformer, fp32": PlainLoop(settings, prepared),
        "mt, fp32": OurLoop(settings, prepared, "fp32"),
        "mt, bf16": OurLoop(settings, prepared, "bf16"),
    }
    micro = settings.batching.micro_tokens
    corpus = prepared.train
    epoch = batching.Epoch(
        corpus.source_lengths, corpus.target_lengths, settings.batching,
        4608 if micro == "auto" else micro, 1, 0,
    )  # fmt: skip
    some = epoch.updates(0)[: given.updates]
    updates = [[batching.collate(corpus, m) for m in u] for u in some]
    tokens = sum(int(batch.target_lengths.sum()) for update in updates for batch in update)
    for side in sides.values():
        side.update(updates[0])  # warm-up
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            for batches in updates:
                side.update(batches)
            speeds[name].append(tokens / (time.perf_counter() - began))
    print_table(speeds, threads, tokens / len(updates))


def print_table(speeds: dict[str, list[float]], threads: int, tokens: float) -> None:
    first = next(iter(speeds.values()))
    print(f"{threads} threads, torch {torch.__version__}, {tokens:.0f} target tokens an update\n")
    print("| side | target tokens/s, median | lowest to highest | ratio to plain, median |")
    print("|---|---|---|---|")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, first, strict=True))
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"| {name} | {statistics.median(found):,.0f} | {spread} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
