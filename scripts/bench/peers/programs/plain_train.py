"""Trains torch.nn.Transformer in a plain loop; prints a JSON object an update.

Batches are sorted by length and padded; all logits are formed; the dropout is torch's.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.data.collate import to_batch
from mt.interfaces import Batch
from mt.models.modules.positions import sinusoids
from mt.models.transformer import Config
from mt.special_tokens import END, PAD, UNK

TOKENS = 4096


class Plain(nn.Module):
    """The straightforward model: padded batches, torch's layers, all logits."""

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
            logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=PAD,
            label_smoothing=0.1, reduction="sum",
        )  # fmt: skip


class PlainUpdates:
    """The straightforward update of that model."""

    def __init__(self, config: Any, size: int, dropout: float) -> None:
        torch.manual_seed(1)
        self.model = Plain(config, size, dropout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, (0.9, 0.98), 1e-9)

    def __call__(self, batches: list[Batch], bf16: bool = False) -> float:
        """Do one update; return the mean loss of a token."""
        tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = self.model(batch) / tokens
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


def batches(folder: Path) -> Iterator[Batch]:
    """Batches of pairs of like length with about TOKENS real target tokens, without end."""
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    ids = {word: i for i, word in enumerate(words, start=END + 1)}

    def encoded(name: str) -> list[np.ndarray]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return [np.array([*(ids.get(word, UNK) for word in x.split()), END]) for x in lines]

    source, target = encoded("train.source"), encoded("train.target")
    order = sorted(range(len(target)), key=lambda i: (len(target[i]), len(source[i])))
    groups: list[list[int]] = [[]]
    tokens = 0
    for i in order:
        if tokens >= TOKENS:
            groups.append([])
            tokens = 0
        groups[-1].append(i)
        tokens += len(target[i])
    draw = random.Random(1)
    while True:
        draw.shuffle(groups)
        for group in groups:
            yield to_batch([source[i] for i in group], [target[i] for i in group], np.array(group))


def main() -> None:
    """Train for some updates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", type=Path)
    parser.add_argument("--updates", type=int, default=13)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = len((given.pieces / "vocabulary.txt").read_text(encoding="utf-8").splitlines()) + 4
    sizes = Config(d_model=256, n_heads=4, d_ff=1024, encoder_layers=3, decoder_layers=3)
    update = PlainUpdates(sizes, size, sizes.dropout)
    for number, batch in enumerate(batches(given.pieces), start=1):
        tokens = int(batch.target_lengths.sum())
        loss = update([batch], given.precision == "bf16")
        report = {"update": number, "target_tokens": tokens, "loss": round(loss, 3)}
        print(json.dumps(report), flush=True)
        if number == given.updates:
            break


if __name__ == "__main__":
    main()
