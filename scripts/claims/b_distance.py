"""Claim b: whether distance is harder for recurrent networks than for attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claims import recall as recall_source
from claims import training
from claims.agreement import contrasts
from claims.lab import Lab
from claims.recipes import changed, demo, lasting, recurrent
from claims.store import Task
from claims.verdicts import Check, Finding, Judgement, Line, Plot, Table, compared, mean, spread
from mt.contracts import Languages, Pair

TITLE = "Long-distance dependencies"
CLAIM = """
An LSTM hands what it read from word to word, and loses it on the way; attention reaches any word in
one step. So a Transformer relates words over a distance at which an LSTM without attention fails;
attention on top of an LSTM repairs most of that.
"""
EXPERIMENT = """
Recall (`scripts/claims/recall.py`): four random key words between two stretches of random fillers,
as long as the distance; the target is the key words, and what counts is the share of them that
greedy search puts in their place. All models train on a mixture of all distances, equally many
updates. Agreement (`scripts/claims/agreement.py`): in German subordinate clauses of the demo
language the verb stands last; each model is given the right sentence and one with the verb in the
wrong number, and what counts is the share of pairs of which it finds the right one more probable
(forced scores), against the words between subject and verb.
"""
NOTES: tuple[str, ...] = ()
MODELS = ("Transformer", "LSTM with attention", "LSTM without attention")
BANDS = ((0, 3), (4, 5), (6, 8), (9, 99))
"""Of the distance between subject and verb, in words."""
MARGIN = 5.0


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    distances = lab.choose([2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32], [2, 4])
    tasks: dict[str, Task] = {}
    for name in MODELS:
        for seed in seeds:
            tasks[f"recall, {name}, seed {seed}"] = Task(
                "b_distance:recall_accuracy",
                {"recipe": recall(lab, name, seed, distances), "distances": distances,
                 "sentences": lab.choose(200, 100, 4)},
            )  # fmt: skip
        tasks[f"agreement, {name}"] = Task(
            "b_distance:agreement",
            {"recipe": recurrent(lab, demo(lab), name), "size": lab.choose(8000, 4000, 200)},
        )
    found = lab.measure(tasks)
    return {
        "seeds": seeds,
        "distances": distances,
        "recall": {
            name: [found[f"recall, {name}, seed {seed}"] for seed in seeds] for name in MODELS
        },
        "agreement": {name: found[f"agreement, {name}"] for name in MODELS},
    }


def recall(lab: Lab, name: str, seed: int, distances: list[int]) -> dict[str, Any]:
    """The recipe of a model that recalls."""
    steps = lab.choose(1200, 700, 6)
    size = steps * lab.choose(64, 64, 8)
    words: dict[str, Any] = {"kind": "claims.recall", "distances": distances}
    changes = {
        "languages": {"source": "words", "target": "keys"},
        "data!": {
            "train": [{**words, "size": size, "seed": 1}],
            "valid": {**words, "size": 40 * len(distances), "seed": 2},
            "max_length": 2 * max(distances) + 8,
            "drop_overlap": False, "processes": 1,
        },
        "vocabulary!": {"kind": "whitespace", "size": 400},
        "model.d_model": lab.choose(64, 64, 16), "model.d_ff": lab.choose(256, 256, 32),
        "batching.tokens": lab.choose(320, 320, 40), "batching.micro_tokens": 8192,
        "optimizer.learning_rate": 3e-3,
        "training": lasting(steps, seed), "schedule.warmup_steps": max(2, steps // 20),
    }  # fmt: skip
    return recurrent(lab, changed(demo(lab), changes), name)


# --------------------------------------------------------------------------- measurements


def recall_accuracy(
    folder: Path, recipe: dict[str, Any], distances: list[int], sentences: int
) -> dict[str, Any]:
    """The share of key words recalled at each distance, in %, besides the curves."""
    run = training.trained_run(folder, recipe)
    engine = training.engine_of(run)
    accuracy = []
    for distance in distances:
        sources, targets = training.texts(recall_data(distance, sentences))
        said = [translation.text for translation in engine.translate(sources)]
        shares = [recall_of(text, right) for text, right in zip(said, targets, strict=True)]
        accuracy.append(100 * mean(shares))
    return {"accuracy": accuracy, **training.curves(run)}


def recall_of(text: str, right: str) -> float:
    """The share of the right words that stand in their place."""
    said = text.split()
    wanted = right.split()
    return sum(a == b for a, b in zip(said, wanted, strict=False)) / len(wanted)


def recall_data(distance: int, sentences: int) -> list[Pair]:
    """Sentences of one distance that no training has seen."""
    config = recall_source.Config(
        size=sentences, distances=(distance,), seed=1000 + distance,
        languages=Languages(source="words", target="keys"),
    )  # fmt: skip
    return list(recall_source.read(config))


def agreement(folder: Path, recipe: dict[str, Any], size: int) -> dict[str, Any]:
    """For each band of distances how many pairs there are, and the share judged right, in %."""
    run = training.trained_run(folder, recipe)
    engine = training.engine_of(run)
    every = list(contrasts(size, seed=7))
    pairs = [
        Pair(each.source, text, "en", "de", "contrast")
        for each in every
        for text in (each.right, each.wrong)
    ]
    scores = [score.log_probability for score in engine.score(pairs)]
    right = [a > b for a, b in zip(scores[::2], scores[1::2], strict=True)]
    found: dict[str, Any] = {"count": [], "accuracy": [], **training.curves(run)}
    for low, high in BANDS:
        chosen = [ok for ok, each in zip(right, every, strict=True) if low <= each.distance <= high]
        found["count"].append(len(chosen))
        found["accuracy"].append(100 * mean(chosen) if chosen else 0.0)
    found["test"] = training.tests_of(run)
    return found


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    seen, agreed = found["recall"], found["agreement"]
    far = {name: [each["accuracy"][-1] for each in seen[name]] for name in MODELS}
    near = {name: [each["accuracy"][0] for each in seen[name]] for name in MODELS}
    longest, shortest = found["distances"][-1], found["distances"][0]
    ours, attentive, plain = MODELS

    def learned(*names: str) -> tuple[Check, ...]:
        return tuple(
            Check(f"{name} recalls 90 % at {shortest} words ({min(near[name]):.0f} %)",
                  min(near[name]) >= 90)
            for name in names
        )  # fmt: skip

    def recalled(statement: str, one: str, other: str, checks: tuple[Check, ...]) -> Finding:
        shares = (f"{name} {spread(far[name])} %" for name in (one, other))
        outcome = f"At {longest} words: {', '.join(shares)}."
        return compared(statement, far[one], far[other], MARGIN, outcome, checks)

    last = max(
        (n for n, count in enumerate(agreed[ours]["count"]) if count >= 30), default=0
    )  # the longest band with enough pairs
    scored = {name: agreed[name]["accuracy"][last] for name in MODELS}
    near_verb = {name: agreed[name]["accuracy"][0] for name in MODELS}
    count = agreed[ours]["count"][last]
    checks = (
        Check(f"{ours} is right of 90 % of the nearest ({near_verb[ours]:.0f} %)",
              near_verb[ours] >= 90),
        Check(f"at least 30 pairs ({count})", count >= 30),
    )  # fmt: skip
    findings = [
        recalled("recall over the longest distance: the Transformer is better than an LSTM "
                 "without attention", ours, plain, learned(ours)),
        recalled("attention repairs the LSTM", attentive, plain, learned(attentive)),
        recalled("the Transformer is better than the LSTM with attention, too",
                 ours, attentive, learned(ours, attentive)),
        compared(
            "agreement over the longest distance: the Transformer is better than an LSTM without "
            "attention", [scored[ours]], [scored[plain]], MARGIN,
            f"Over {band(last)} words: " + ", ".join(
                f"{name} {scored[name]:.1f} %" for name in MODELS) + ".", checks,
        ),
    ]  # fmt: skip
    return Judgement(findings, tables(found), plots(found))


def band(number: int) -> str:
    """`3 to 5`, `9 and more`."""
    low, high = BANDS[number]
    return f"{low} to {high}" if high < 99 else f"{low} and more"


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [["model", "parameters", *(f"{d}" for d in found["distances"])]]
    for name in MODELS:
        runs = found["recall"][name]
        cells = [spread([run["accuracy"][n] for run in runs])
                 for n in range(len(found["distances"]))]  # fmt: skip
        rows.append([name, f"{runs[0]['parameters']:,}", *cells])
    agreed = found["agreement"]
    counts = agreed[MODELS[0]]["count"]
    head = ["model", "parameters", "test BLEU"]
    more = [[*head, *(f"{band(n)} ({count:,})" for n, count in enumerate(counts))]]
    for name in MODELS:
        each = agreed[name]
        cells = [f"{value:.1f}" if count else "" for value, count in
                 zip(each["accuracy"], each["count"], strict=True)]  # fmt: skip
        more.append([name, f"{each['parameters']:,}", f"{each['test']['test']:.1f}", *cells])
    return [
        Table("Key words recalled, %, by distance in words", rows),
        Table("Right verbs, %, by words between subject and verb (number of pairs)", more),
    ]


def plots(found: dict[str, Any]) -> list[Plot]:
    lines = []
    for name in MODELS:
        every = list(zip(*(run["accuracy"] for run in found["recall"][name]), strict=True))
        lines.append(Line(name, found["distances"], [mean(y) for y in every],
                          [min(y) for y in every], [max(y) for y in every]))  # fmt: skip
    agreed = found["agreement"]
    used = [n for n, count in enumerate(agreed[MODELS[0]]["count"]) if count]
    return [
        Plot("recall", "Key words recalled", "distance, words", "%", lines, log_x=True),
        Plot(
            "agreement", "Verbs that agree", "words between subject and verb (at least)", "%",
            [Line(name, [BANDS[n][0] for n in used], [agreed[name]["accuracy"][n] for n in used])
             for name in MODELS],
        ),
    ]  # fmt: skip
