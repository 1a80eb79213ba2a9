"""Claim c: what each part of the Transformer contributes; each is removed in turn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sacrebleu.metrics import BLEU
from torch.nn import functional as F

from claims import training
from claims.lab import Lab
from claims.recipes import changed, demo, lasting, sets
from claims.store import Task
from claims.verdicts import (
    Check,
    Finding,
    Line,
    Part,
    Plot,
    Table,
    band,
    bleu_of,
    by_step,
    check_bleu,
    collect,
    find_larger,
    name_seeds,
    over_seeds,
)
from mt.checkpoints import run_directory
from mt.config.plugins import plugin
from mt.data.collate import to_batch
from mt.decoding.batching import length_batches
from mt.special_tokens import END, FIRST_PIECE

TITLE = "What each part of the Transformer is good for"
CLAIM = """
Several heads are better than one of the same total width. Products of queries and keys must be
scaled by the square root of their width, else the softmax saturates. Without positions the order of
words is lost. Normalising before each sublayer (pre-norm) trains more steadily than after it
(post-norm), above all in deep models without warm-up. And a model trained by teacher forcing never
sees its own mistakes: running free it does worse than when it is given the right beginning.
"""
EXPERIMENT = """
One small Transformer on the demo language, and variants of it that differ in one setting, same
seeds, data and updates. The verdict follows from the validation loss (nats a token, labels not
smoothed), seed by seed, by more than 0.02; BLEU of greedy search on the test set is shown beside
it. For teacher forcing, each of these models predicts each token of the test set after the right
ones before it (forced), and translates freely; the BLEU of both is compared.
"""
MARGIN = 0.02
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "one head": {"model.n_heads": 1},
    "not scaled": {"model.scale_attention": False},
    "one head, not scaled": {"model.n_heads": 1, "model.scale_attention": False},
    "no positions": {"model.positions": "none"},
    "post-norm": {"model.norm": "post"},
}
DEEP = "deep, {norm}-norm, {warmup}"
WARM, COLD = "with warm-up", "without warm-up"


def make_recipes(lab: Lab) -> dict[str, dict[str, Any]]:
    """Return each variant by its name, with the first seed."""
    base = demo(lab)
    found = {name: changed(base, changes) for name, changes in VARIANTS.items()}
    steps, width = lab.choose(500, 300, 6), lab.choose(64, 64, 16)
    layers = lab.choose(6, 6, 2)
    deep = {
        "model.encoder_layers": layers, "model.decoder_layers": layers, "model.d_model": width,
        "model.d_ff": 4 * width, "training": lasting(steps),
    }  # fmt: skip
    for norm in ("pre", "post"):
        for warmup, updates in ((WARM, max(2, steps // 5)), (COLD, 0)):
            changes = {"model.norm": norm, "schedule.warmup_steps": updates}
            found[DEEP.format(norm=norm, warmup=warmup)] = changed(base, {**deep, **changes})
    return found


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    recipes = make_recipes(lab)

    def task(function: str, name: str, seed: int) -> Task:
        return Task(function, {"recipe": changed(recipes[name], {"training.seed": seed})})

    return {
        "seeds": seeds,
        "sets": {name: sets(recipe, recipes["as it is"]) for name, recipe in recipes.items()},
        "trained": lab.measure_grid(recipes, seeds, partial(task, "training:trained")),
        "forced": lab.measure_grid(VARIANTS, seeds, partial(task, "c_parts:forced"), "forced"),
    }


# --------------------------------------------------------------------------- measurements


@torch.inference_mode()
def forced(folder: Path, recipe: dict[str, Any]) -> dict[str, float]:
    """Measure predictions after the right tokens, and free translations.

    Returns:
        `perplexity` and `accuracy` (share of tokens) of forced predictions; the BLEU of these
        (`forced`) and of translations (`free`).
    """
    run = training.trained_run(folder, recipe)
    test = training.recipe_of(recipe).data.test["test"]
    sources, targets = training.texts(plugin("sources", test.kind).read(test))
    opened = run_directory.open_run(run)
    model, vocabulary = opened.model().eval(), opened.vocabulary
    pairs = [
        ([*source, END], [*target, END])
        for source, target in zip(
            vocabulary.encode_source(sources), vocabulary.encode_target(targets), strict=True
        )
    ]
    predicted: dict[int, list[int]] = {}
    right, count, loss = 0, 0, 0.0
    for rows in length_batches([max(map(len, pair)) for pair in pairs], 2048):
        ids = [[np.array(pairs[row][side]) for row in rows] for side in (0, 1)]
        batch = to_batch(*ids, np.array(rows))
        hidden = model.decode(batch.inputs, model.encode(batch.source))
        logits = F.linear(hidden, *model.output())  # [B, T, V]
        best, real = logits.argmax(-1), batch.labels != 0
        right += int(((best == batch.labels) & real).sum())
        count += int(real.sum())
        loss += float(F.cross_entropy(logits[real], batch.labels[real], reduction="sum"))
        for row, tokens in zip(rows, best.tolist(), strict=True):
            predicted[row] = until_end(tokens[: len(pairs[row][1])])
    texts = vocabulary.decode_target([predicted[row] for row in range(len(pairs))])
    free = [each.text for each in training.engine_of(run).translate(sources)]
    return {
        "perplexity": float(np.exp(loss / count)),
        "accuracy": right / count,
        "forced": BLEU(force=True).corpus_score(texts, [targets]).score,
        "free": BLEU(force=True).corpus_score(free, [targets]).score,
    }


def until_end(tokens: list[int]) -> list[int]:
    """Return the pieces of text among tokens, up to the first end."""
    kept = tokens[: tokens.index(END)] if END in tokens else tokens
    return [token for token in kept if token >= FIRST_PIECE]


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    trained, forced = found["trained"], found["forced"]
    losses = {name: collect(runs, "valid_loss") for name, runs in trained.items()}
    bleu = {name: bleu_of(runs) for name, runs in trained.items()}
    warm, cold = ([DEEP.format(norm=n, warmup=w) for n in ("pre", "post")] for w in (WARM, COLD))
    for statement, one, other in (
        ("four heads are better than one of the same width", "as it is", "one head"),
        ("four heads need the scaling of products", "as it is", "not scaled"),
        ("one wide head needs it", "one head", "one head, not scaled"),
        ("positions are needed", "as it is", "no positions"),
        ("pre-norm is better than post-norm in two layers", "as it is", "post-norm"),
        ("it is in six layers with warm-up", *warm),
        ("it is in six layers without warm-up", *cold),
    ):
        yield find_larger(
            statement, losses[other], losses[one], MARGIN,
            f"Loss {over_seeds(losses[one], 3)} against {over_seeds(losses[other], 3)}, "
            f"BLEU {over_seeds(bleu[one])} against {over_seeds(bleu[other])}.",
            check_bleu("the better of the two", max(*bleu[one], *bleu[other])),
        )  # fmt: skip
    yield judge_exposure([each for runs in forced.values() for each in runs])
    of = name_seeds(found["seeds"])
    rows = []
    for name, runs in trained.items():
        settings = [
            f"`{each}`" for each in found["sets"][name]
            if not name.startswith("deep") or any(word in each for word in ("norm", "warmup", "_l"))
        ]  # fmt: skip
        size = f"{runs[0]['parameters']:,}"
        shown = " ".join(settings) if found["sets"][name] else "the base"
        rows.append((name, over_seeds(losses[name], 3), over_seeds(bleu[name]), size, shown))
    head = ["variant", "validation loss", "test BLEU", "parameters", "settings"]
    yield Table(f"The variants, {of}", head, rows)
    rows = [
        (name, over_seeds(collect(runs, "perplexity"), 2),
         over_seeds([100 * each["accuracy"] for each in runs]),
         over_seeds(collect(runs, "forced")), over_seeds(collect(runs, "free")))
        for name, runs in forced.items()
    ]  # fmt: skip
    head = ["variant", "forced perplexity", "forced accuracy, %", "forced BLEU", "free BLEU"]
    yield Table(f"Teacher forcing, {of}", head, rows)
    yield from draw(trained, forced)


def judge_exposure(every: list[dict[str, float]]) -> Finding:
    """Compare forced predictions with free translations."""
    able = [each for each in every if each["free"] >= 20]
    gaps = [each["forced"] - each["free"] for each in able]
    outcome = ""
    if able:
        order = rank_agreement([-e["perplexity"] for e in every], [e["free"] for e in every])
        outcome = (
            f"Forced predictions are {over_seeds(gaps)} BLEU above free translations over "
            f"{len(able)} models; perplexity puts {100 * order:.0f} % of all pairs of models into "
            "the order of their free BLEU."
        )
    return find_larger(
        "running free costs more than 1 BLEU against forced predictions", gaps, 0.0, 1.0, outcome,
        Check(f"models that reached 20 BLEU ({len(able)}, at least 3)", len(able) >= 3),
    )  # fmt: skip


def rank_agreement(one: list[float], other: list[float]) -> float:
    """Return the share of pairs that both put in the same order."""
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    same = sum((one[i] - one[j]) * (other[i] - other[j]) > 0 for i, j in pairs)
    return same / max(1, len(pairs))


def draw(trained: dict[str, Any], forced: dict[str, Any]) -> Iterator[Plot]:
    curves = {
        name: band(name, runs[0]["steps"], by_step(runs, "losses"))
        for name, runs in trained.items()
    }
    yield Plot("parts", "Training loss with and without each part", "updates", "nats a token",
               [curves[name] for name in VARIANTS])  # fmt: skip
    yield Plot("deep", "Six layers: where to normalise", "updates", "nats a token",
               [line for name, line in curves.items() if name not in VARIANTS])  # fmt: skip
    points = sorted(
        (each["perplexity"], each["forced"], each["free"])
        for runs in forced.values()
        for each in runs
    )
    x, predicted, free = zip(*points, strict=True)
    yield Plot("forcing", "Forced and free, a point a model", "forced perplexity", "BLEU",
               [Line("forced predictions", x, predicted),
                Line("free translations", x, free)])  # fmt: skip
