"""Runs and the command of distillation."""

from __future__ import annotations

import hashlib

from mt.checkpoints.run_directory import best_checkpoint
from mt.cli import main

CONFIG = """
languages: {source: en, target: de}
data:
  train: [{kind: text, source: train.en, target: train.de}]
  valid: {kind: text, source: train.en, target: train.de}
  test:
    some: {kind: text, source: train.en, target: train.de}
  max_length: 40
  processes: 1
  drop_overlap: false
vocabulary: {size: 410}
model: {d_model: 16, n_heads: 2, d_ff: 16, encoder_layers: 1, decoder_layers: 1}
schedule: {kind: constant, warmup_steps: 0}
batching: {tokens: 40, micro_tokens: 100}
training: {max_steps: 4, validate_every: 4, save_every: 2, monitor: loss}
runtime: {threads: 1, precision: fp32, device: cpu}
search: {kind: greedy, max_length_extra: 3}
"""

FAST = ["--threads", "1", "--precision", "fp32", "--processes", "1"]


def distil(*more):
    return main.run(["distill", "run", "student.yaml", *FAST, *more])


def weights(run):
    folder = best_checkpoint(run)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
