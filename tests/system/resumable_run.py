"""A tiny run with all that must survive a crash in it, and what it ends with."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import yaml

from mt.errors import Stopped

RECIPE = {
    "languages": {"source": "en", "target": "de"},
    "data": {
        "train": [{"kind": "demo", "size": 150}],
        "valid": {"kind": "demo", "split": "valid", "size": 10},
        "max_length": 48,
        "processes": 1,
    },
    "vocabulary": {"size": 450, "model": "bpe"},
    "model": {
        "d_model": 16, "n_heads": 2, "d_ff": 16, "encoder_layers": 1, "decoder_layers": 1,
        "dropout": 0.1, "attention_dropout": 0.1, "norm": "pre",
    },
    "schedule": {"kind": "linear", "warmup_steps": 3},
    "batching": {"tokens": 500, "micro_tokens": 400, "window": 3},
    "training": {
        "max_epochs": 3, "ema": 0.9, "average": 2, "patience": 50, "report_every": 5,
        "validate_every": 7, "save_every": 5, "keep_last": 2, "monitor": "loss",
        "validate_sentences": 2,
    },
    "runtime": {"threads": 1, "precision": "fp32", "device": "cpu"},
    "search": {"kind": "greedy", "max_length_ratio": 0.2, "max_length_extra": 2},
}  # fmt: skip


def written(folder, **changes):
    """The recipe as a file; `a__b=c` changes a.b, `a=c` all of a."""
    values = json.loads(json.dumps(RECIPE))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            values.setdefault(section, {})[key] = value
        else:
            values[section] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def bits(run):
    """Everything that the last checkpoints hold, but for the time spent."""
    found = {}
    for folder in sorted((run / "checkpoints").iterdir()):
        for name in ("model.safetensors", "training.safetensors"):
            if (folder / name).exists():
                data = (folder / name).read_bytes()
                found[f"{folder.name}/{name}"] = hashlib.sha256(data).hexdigest()
        state = json.loads((folder / "state.json").read_text())
        found[f"{folder.name}/state"] = {k: v for k, v in state.items() if k != "seconds"}
    found["best"] = (run / "best").read_text()
    return found


POINTS = {
    "reading": ("mt.data.build", "read_pairs"),
    "learning": ("mt.vocabulary.learn", "_train_subwords"),
    "encoding": ("mt.data.encode", "encode"),
    "autotuning": ("mt.training.setup", "autotune"),
    "update": ("mt.training.loop", "train_update"),
    "validation": ("mt.training.loop", "validate"),
    "translation": ("mt.training.validation", "_translate_pairs"),
    "averaging": ("mt.checkpoints.averaging", "load_mean"),
}
"""Fault points of `attempt`, besides those of files."""


def attempt(path, run, log, fault, cache):
    """`mt train` in this process, in a session of its own; what it says goes to a file.

    The entry point of a process that a fork server makes: it is spared the seconds of importing.
    """
    import faults

    from mt.cli import main
    from mt.runtime import signals

    os.setsid()
    signals.install()
    log.with_suffix(".ready").touch()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    faults.install()
    for point, (module, name) in POINTS.items():
        faults.mark(point, module, name)
    os.environ["MT_FAULT"] = fault or ""
    os.environ["MT_CACHE"] = str(cache)
    sys.argv = ["mt", "train", str(path), "--run", str(run), "--trace"]
    try:
        main.main()
    except KeyboardInterrupt:  # before the command
        sys.exit(130)
    except Stopped as error:
        sys.exit(error.exit_code)
