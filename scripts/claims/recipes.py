"""The recipes that claims train, as plain values: one for the demo language, and changes to it.

Equal recipes are trained once, whichever claims ask for them.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from claims.lab import Lab

Recipe = dict[str, Any]
RIVALS = {"LSTM with attention": ("bahdanau", 7), "LSTM without attention": ("none", 9)}
"""Their attention, and units in quarters of the width: so they have as many weights as the
Transformer of two layers, within a twentieth."""


def demo(lab: Lab, changes: Recipe | None = None) -> Recipe:
    """Return the recipe of a small Transformer on the demo language, English to German.

    Args:
        lab: knows the size.
        changes: values by dotted key, such as `{"model.norm": "post"}`; a key that ends in `!`
            replaces a whole section.
    """
    steps = lab.choose(1000, 500, 6)
    width = lab.choose(128, 96, 16)
    recipe = {
        "languages": {"source": "en", "target": "de"},
        "data": {
            "train": [demo_source("train", lab.choose(20_000, 20_000, 300))],
            "valid": demo_source("valid", lab.choose(400, 200, 20)),
            "test": {"test": demo_source("test", lab.choose(500, 300, 20))},
            "max_length": 64,
            "processes": 1,
        },
        "vocabulary": {"size": lab.choose(2000, 2000, 500)},
        "model": {
            "kind": "transformer", "d_model": width, "n_heads": 4, "d_ff": 4 * width,
            "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0, "norm": "pre",
        },
        "objective": {"kind": "cross_entropy", "label_smoothing": 0.0},
        "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
        "schedule": {"kind": "linear", "warmup_steps": max(2, steps // 20)},
        "batching": {"tokens": lab.choose(1024, 1024, 128), "micro_tokens": 4096},
        "training": lasting(steps),
        "runtime": {"device": "cpu", "precision": "fp32", "threads": 1},
        "search": {"kind": "greedy"},
    }  # fmt: skip
    return changed(recipe, changes or {})


def recurrent(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with an LSTM of about as many weights in place of its Transformer.

    Args:
        recipe: of a Transformer.
        name: `Transformer` (as it is), `LSTM with attention` or `LSTM without attention`.
    """
    if name == "Transformer":
        return recipe
    width = recipe["model"]["d_model"]
    attention, quarters = RIVALS[name]
    model = {
        "kind": "rnn", "d_model": width, "units": quarters * width // 4, "encoder_layers": 1,
        "decoder_layers": 1, "dropout": recipe["model"]["dropout"], "attention": attention,
    }  # fmt: skip
    return changed(recipe, {"model!": model})


def demo_source(split: str, size: int, **more: Any) -> Recipe:
    """Return the demo corpus of a split."""
    return {"kind": "demo", "split": split, "size": size, "seed": 1} | more


def lasting(steps: int, seed: int = 1, monitor: str = "bleu") -> Recipe:
    """Return a training that is validated and saved four times.

    Args:
        steps: updates.
        seed: of weights, dropout and order.
        monitor: what makes a checkpoint the best, which is the one that is scored.
    """
    every = max(1, steps // 4)
    return {
        "max_steps": steps, "seed": seed, "report_every": max(1, steps // 20),
        "validate_every": every, "save_every": every, "keep_last": 1, "monitor": monitor,
        "validate_sentences": 200, "samples": 0,
    }  # fmt: skip


def changed(recipe: Recipe, changes: Recipe) -> Recipe:
    """Return the recipe with values replaced by dotted key; None removes a value."""
    result = copy.deepcopy(recipe)
    for key, value in changes.items():
        *sections, name = key.removesuffix("!").split(".")
        at = result
        for section in sections:
            at = at.setdefault(section, {})
        if value is None:
            at.pop(name, None)
        elif isinstance(value, dict) and isinstance(at.get(name), dict) and not key.endswith("!"):
            at[name] = {**at[name], **value}
        else:
            at[name] = copy.deepcopy(value)
    return result


def sets(recipe: Recipe, base: Recipe) -> list[str]:
    """Return the `--set` options that turn `base` into `recipe`, to show a variant to a reader."""
    settings = []
    for section, values in recipe.items():
        for name, value in values.items():
            if base.get(section, {}).get(name) != value:
                settings.append(f"{section}.{name}={json.dumps(value)}")
    return settings
