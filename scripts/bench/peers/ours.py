"""mt itself, as `mt train` in this repository."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from harness import MT, ROOT

from peers import Command, Job, Line, Peer, Update, sizes


def write_recipe(job: Job, folder: Path) -> str:
    def corpus(name: str) -> dict[str, str]:
        sides = {side: str(job.pieces / f"{name}.{side}") for side in ("source", "target")}
        return {"kind": "text", **sides}

    recipe = {
        "languages": {"source": "en", "target": "de"},
        "data": {"train": [corpus("train")], "valid": corpus("valid"), "drop_overlap": False},
        "vocabulary": {"kind": "whitespace", "size": 1_000_000},
        "model": {
            "kind": "transformer", "d_model": sizes.WIDTH, "n_heads": sizes.HEADS,
            "d_ff": sizes.FEED_FORWARD, "encoder_layers": sizes.LAYERS,
            "decoder_layers": sizes.LAYERS, "dropout": sizes.DROPOUT,
            "attention_dropout": sizes.DROPOUT, "activation_dropout": sizes.DROPOUT,
        },
        "objective": {"kind": "cross_entropy", "label_smoothing": sizes.SMOOTHING},
        "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "batching": {"tokens": sizes.TOKENS},
        "training": {
            "max_steps": job.updates, "report_every": 1, "seed": sizes.SEED, "samples": 0,
            "validate_sentences": 1,
        },
        "runtime": {"device": "cpu", "threads": job.threads, "precision": job.precision},
        "search": {"kind": "greedy"},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return str(path)


def prepare(job: Job) -> Iterator[Command]:
    yield [*MT, "prepare", write_recipe(job, job.prepared)]


def train(job: Job) -> Command:
    run = str(job.work / "run")
    return [*MT, "train", write_recipe(job, job.work), "--run", run]


def read(lines: Sequence[Line], job: Job) -> Iterator[Update]:
    """Read metrics.jsonl: for each update its target tokens, and their number a second."""
    now = 0.0
    path = job.work / "run" / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "target_tokens_per_second" in row:
            now += row["target_tokens"] / row["target_tokens_per_second"]
            yield Update(now, row["target_tokens"])


PEER = Peer(
    name="mt",
    packages="mt",
    prepare=prepare,
    train=train,
    read=read,
    variables={"PYTHONPATH": str(ROOT)},
    precisions=("fp32", "bf16"),
    keeps_all=True,
)
