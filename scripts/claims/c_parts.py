"""Claim c: what the parts of the Transformer are good for, each taken away in turn."""

from __future__ import annotations

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
from claims.verdicts import Check, Finding, Judgement, Line, Plot, Table, compared, mean, spread
from mt.checkpoints import run_directory
from mt.config.plugins import plugin
from mt.decoding.batching import length_batches
from mt.decoding.torch_searcher import batch_of
from mt.special_tokens import END, FIRST_PIECE

TITLE = "What each part of the Transformer is good for"
CLAIM = """
Several heads see more than one of the same total width. Products of queries and keys must be
scaled by the square root of their width, else the softmax saturates. Without positions the order
of words is lost. Normalising before each sublayer (pre-norm) trains more steadily than after it
(post-norm), above all in deep models without warm-up. And a model trained by teacher forcing never
sees its own mistakes: running free it does worse than when it is given the right beginning.
"""
EXPERIMENT = """
One small Transformer on the demo language, and variants of it that differ in one setting, same
seeds, data and updates. What decides is the validation loss (nats a token, labels not smoothed),
seed by seed, by more than 0.02; BLEU of greedy search on the test set is shown beside it. For
teacher forcing, each of these models predicts each token of the test set after the right ones
before it (forced), and translates freely; the BLEU of both is compared.
"""
NOTES: tuple[str, ...] = ()
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


def recipes(lab: Lab) -> dict[str, dict[str, Any]]:
    """Each variant by its name, with the first seed."""
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
    known = recipes(lab)
    every = {
        (name, seed): changed(recipe, {"training.seed": seed})
        for name, recipe in known.items()
        for seed in seeds
    }
    trained = lab.measure(
        {f"{name}, seed {s}": Task("training:trained", {"recipe": r})
         for (name, s), r in every.items()}
    )  # fmt: skip
    forced = lab.measure(
        {f"{name}, seed {s}, forced": Task("c_parts:forced", {"recipe": r})
         for (name, s), r in every.items() if name in VARIANTS}
    )  # fmt: skip
    base = known["as it is"]
    return {
        "seeds": seeds,
        "sets": {name: sets(recipe, base) for name, recipe in known.items()},
        "trained": {
            name: [trained[f"{name}, seed {seed}"] for seed in seeds] for name in known
        },
        "forced": {
            name: [forced[f"{name}, seed {seed}, forced"] for seed in seeds] for name in VARIANTS
        },
    }  # fmt: skip


# --------------------------------------------------------------------------- measurements


@torch.inference_mode()
def forced(folder: Path, recipe: dict[str, Any]) -> dict[str, float]:
    """BLEU of what is predicted after the right tokens, and of what is translated freely.

    Returns:
        `perplexity` and `accuracy` (share of tokens) of forced predictions, `forced` and `free`.
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
    said: dict[int, list[int]] = {}
    right, count, loss = 0, 0, 0.0
    for rows in length_batches([max(map(len, pair)) for pair in pairs], 2048):
        ids = [[np.array(pairs[row][side]) for row in rows] for side in (0, 1)]
        batch = batch_of(*ids, np.array(rows))
        hidden = model.decode(batch.inputs, model.encode(batch.source))
        logits = F.linear(hidden, *model.output())  # [B, T, V]
        best, real = logits.argmax(-1), batch.labels != 0
        right += int(((best == batch.labels) & real).sum())
        count += int(real.sum())
        loss += float(F.cross_entropy(logits[real], batch.labels[real], reduction="sum"))
        for row, tokens in zip(rows, best.tolist(), strict=True):
            said[row] = until_end(tokens[: len(pairs[row][1])])
    texts = vocabulary.decode_target([said[row] for row in range(len(pairs))])
    free = [each.text for each in training.engine_of(run).translate(sources)]
    return {
        "perplexity": float(np.exp(loss / count)),
        "accuracy": right / count,
        "forced": BLEU(force=True).corpus_score(texts, [targets]).score,
        "free": BLEU(force=True).corpus_score(free, [targets]).score,
    }


def until_end(tokens: list[int]) -> list[int]:
    """The pieces of text among tokens, up to the first end."""
    kept = tokens[: tokens.index(END)] if END in tokens else tokens
    return [token for token in kept if token >= FIRST_PIECE]


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    trained, forced = found["trained"], found["forced"]
    losses = {name: [each["valid_loss"] for each in runs] for name, runs in trained.items()}
    bleu = {name: [each["test"]["test"] for each in runs] for name, runs in trained.items()}

    def better(statement: str, one: str, other: str) -> Finding:
        learned = Check(
            f"the better of the two reached 20 BLEU ({max(*bleu[one], *bleu[other]):.1f})",
            max(*bleu[one], *bleu[other]) >= 20,
        )
        outcome = (
            f"Loss {spread(losses[one], 3)} against {spread(losses[other], 3)}, "
            f"BLEU {spread(bleu[one])} against {spread(bleu[other])}."
        )
        return compared(statement, losses[other], losses[one], MARGIN, outcome, (learned,))

    def deep(norm: str, warmup: str) -> str:
        return DEEP.format(norm=norm, warmup=warmup)

    findings = [
        better("four heads are better than one of the same width", "as it is", "one head"),
        better("four heads need the scaling of products", "as it is", "not scaled"),
        better("one wide head needs it", "one head", "one head, not scaled"),
        better("positions are needed", "as it is", "no positions"),
        better("pre-norm is better than post-norm in two layers", "as it is", "post-norm"),
        better("it is in six layers with warm-up", deep("pre", WARM), deep("post", WARM)),
        better("it is in six layers without warm-up", deep("pre", COLD), deep("post", COLD)),
        exposure(forced),
    ]
    return Judgement(findings, tables(found, losses, bleu), plots(found))


def exposure(forced: dict[str, list[dict[str, float]]]) -> Finding:
    """Whether running free costs BLEU."""
    every = [each for runs in forced.values() for each in runs]
    able = [each for each in every if each["free"] >= 20]
    gaps = [each["forced"] - each["free"] for each in able]
    enough = Check(f"models that reached 20 BLEU ({len(able)}, at least 3)", len(able) >= 3)
    outcome = ""
    if able:
        order = rank_agreement([-e["perplexity"] for e in every], [e["free"] for e in every])
        outcome = (
            f"Forced predictions are {spread(gaps)} BLEU above free translations over {len(able)} "
            f"models; perplexity puts {100 * order:.0f} % of all pairs of models into the order of "
            "their free BLEU."
        )
    return compared(
        "running free costs more than 1 BLEU against forced predictions",
        gaps, [0.0] * len(gaps), 1.0, outcome, (enough,),
    )  # fmt: skip


def rank_agreement(one: list[float], other: list[float]) -> float:
    """The share of pairs that both put in the same order."""
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    same = sum((one[i] - one[j]) * (other[i] - other[j]) > 0 for i, j in pairs)
    return same / max(1, len(pairs))


def tables(
    found: dict[str, Any], losses: dict[str, list[float]], bleu: dict[str, list[float]]
) -> list[Table]:
    rows = [["variant", "validation loss", "test BLEU", "parameters", "settings"]]
    for name, runs in found["trained"].items():
        told = " ".join(f"`{setting}`" for setting in found["sets"][name]) or "the base"
        if name.startswith("deep"):
            told = " ".join(
                f"`{s}`" for s in found["sets"][name] if "norm" in s or "warmup" in s or "_l" in s
            )
        size = f"{runs[0]['parameters']:,}"
        rows.append([name, spread(losses[name], 3), spread(bleu[name]), size, told])
    gap = [["variant", "forced perplexity", "forced accuracy, %", "forced BLEU", "free BLEU"]]
    for name, runs in found["forced"].items():
        gap.append([
            name,
            spread([each["perplexity"] for each in runs], 2),
            spread([100 * each["accuracy"] for each in runs]),
            spread([each["forced"] for each in runs]),
            spread([each["free"] for each in runs]),
        ])  # fmt: skip
    seeds = len(found["seeds"])
    of = f"mean of {seeds} seeds (lowest to highest)" if seeds > 1 else "one seed"
    return [Table(f"The variants, {of}", rows), Table(f"Teacher forcing, {of}", gap)]


def plots(found: dict[str, Any]) -> list[Plot]:
    def curve(name: str) -> Line:
        runs = found["trained"][name]
        every = list(zip(*(each["losses"] for each in runs), strict=True))
        return Line(
            name, runs[0]["steps"], [mean(y) for y in every],
            [min(y) for y in every], [max(y) for y in every],
        )  # fmt: skip

    points = sorted(
        (each["perplexity"], each["forced"], each["free"])
        for runs in found["forced"].values()
        for each in runs
    )
    xs = [point[0] for point in points]
    deep = [name for name in found["trained"] if name.startswith("deep")]
    return [
        Plot("parts", "Training loss with and without each part", "updates", "nats a token",
             [curve(name) for name in VARIANTS]),
        Plot("deep", "Six layers: where to normalise", "updates", "nats a token",
             [curve(name) for name in deep]),
        Plot("forcing", "Forced and free, a point a model", "forced perplexity", "BLEU",
             [Line("forced predictions", xs, [p[1] for p in points]),
              Line("free translations", xs, [p[2] for p in points])]),
    ]  # fmt: skip
