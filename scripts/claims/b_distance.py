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
from mt.config.schema import Languages
from mt.data.pairs import Pair

TITLE = "Long-distance dependencies"
CLAIM = """
An LSTM hands what it read from word to word, and loses it on the way; attention reaches any word in
one step. So a Transformer relates words over a distance at which an LSTM without attention fails;
attention on top of an LSTM repairs that.
"""
EXPERIMENT = """
Recall (`scripts/claims/recall.py`): four random key words between two stretches of random fillers,
as long as the distance; the target is the key words. Copying: all words are key words, as many as
the distance, so that with the distance grows what must be carried. What counts is the share of key
words that greedy search puts in their place; all models train on a mixture of the distances,
equally many updates. Agreement (`scripts/claims/agreement.py`): in German subordinate clauses of
the demo language the verb stands last; each model is given the right sentence and one with the verb
in the wrong number, and what counts is the share of pairs of which it finds the right one more
probable (forced scores), against the words between subject and verb.
"""
NOTES: tuple[str, ...] = ()
MODELS = ("Transformer", "LSTM with attention", "LSTM without attention")
TASKS: dict[str, int | str] = {"recall": 4, "copying": "all"}
"""How many key words there are."""
BANDS = ((0, 3), (4, 5), (6, 8), (9, 99))
"""Of the distance between subject and verb, in words."""
MARGIN = 5.0


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    distances = lab.choose([2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32], [2, 4])
    tasks: dict[str, Task] = {}
    for name in MODELS:
        for what in TASKS:
            for seed in seeds:
                tasks[f"{what}, {name}, seed {seed}"] = Task(
                    "b_distance:recalled",
                    {"recipe": recall(lab, what, name, seed, distances), "distances": distances,
                     "sentences": lab.choose(100, 60, 4)},
                )  # fmt: skip
        tasks[f"agreement, {name}"] = Task(
            "b_distance:agreement",
            {"recipe": recurrent(demo(lab), name), "size": lab.choose(8000, 4000, 200)},
        )
    found = lab.measure(tasks)
    return {
        "seeds": seeds,
        "distances": distances,
        **{
            what: {name: [found[f"{what}, {name}, seed {s}"] for s in seeds] for name in MODELS}
            for what in TASKS
        },
        "agreement": {name: found[f"agreement, {name}"] for name in MODELS},
    }


def recall(lab: Lab, what: str, name: str, seed: int, distances: list[int]) -> dict[str, Any]:
    """The recipe of a model that recalls."""
    steps = lab.choose(1200, 700, 6)
    tokens = lab.choose(320, 320, 40) * (2 if what == "copying" else 1)
    words: dict[str, Any] = {"kind": "claims.recall", "distances": distances, "keys": TASKS[what]}
    length = 5 if what == "recall" else 1 + sum(distances) // len(distances)  # of a target
    changes = {
        "languages": {"source": "words", "target": "keys"},
        "data!": {
            "train": [{**words, "size": steps * tokens // length, "seed": 1}],
            "valid": {**words, "size": 40 * len(distances), "seed": 2},
            "max_length": 2 * max(distances) + 8,
            "drop_overlap": False, "processes": 1,
        },
        "vocabulary!": {"kind": "whitespace", "size": 400},
        "model.d_model": lab.choose(64, 64, 16), "model.d_ff": lab.choose(256, 256, 32),
        "batching.tokens": tokens, "batching.micro_tokens": 8192,
        "optimizer.learning_rate": 3e-3,
        "training": lasting(steps, seed, "loss"), "schedule.warmup_steps": max(2, steps // 20),
        "search!": {"kind": "greedy", "max_length_ratio": 1.0, "max_length_extra": 4},
    }  # fmt: skip
    return recurrent(changed(demo(lab), changes), name)


# --------------------------------------------------------------------------- measurements


def recalled(
    folder: Path, recipe: dict[str, Any], distances: list[int], sentences: int
) -> dict[str, Any]:
    """The share of key words recalled at each distance, in %, besides the curves."""
    run = training.trained_run(folder, recipe)
    engine = training.engine_of(run)
    accuracy = []
    for distance in distances:
        config = recall_source.Config(
            size=sentences, distances=(distance,), seed=1000 + distance,
            keys=recipe["data"]["train"][0]["keys"], languages=Languages(**recipe["languages"]),
        )  # fmt: skip
        sources, targets = training.texts(recall_source.read(config))
        said = [translation.text for translation in engine.translate(sources)]
        shares = [recall_of(text, right) for text, right in zip(said, targets, strict=True)]
        accuracy.append(100 * mean(shares))
    return {"accuracy": accuracy, **training.curves(run)}


def recall_of(text: str, right: str) -> float:
    """The share of the right words that stand in their place."""
    said = text.split()
    wanted = right.split()
    return sum(a == b for a, b in zip(said, wanted, strict=False)) / len(wanted)


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
    findings = [*of_task(found, "recall"), *of_task(found, "copying"), of_agreement(found)]
    return Judgement(findings, tables(found), plots(found))


def of_task(found: dict[str, Any], what: str) -> list[Finding]:
    """What recall, or copying, says."""
    runs, distances = found[what], found["distances"]
    far, near = (
        {name: [run["accuracy"][at] for run in runs[name]] for name in MODELS} for at in (-1, 0)
    )
    ours, attentive, plain = MODELS

    def better(statement: str, one: str, other: str) -> Finding:
        least = min(near[one])
        learned = Check(
            f"{one} is right of 90 % at {distances[0]} words ({least:.0f} %)", least >= 90
        )
        shares = (f"{name} {spread(far[name])} %" for name in (one, other))
        outcome = f"At {distances[-1]} words: {', '.join(shares)}."
        return compared(f"{what}: {statement}", far[one], far[other], MARGIN, outcome, (learned,))

    return [
        better("the Transformer goes farther than an LSTM without attention", ours, plain),
        better("attention lets the LSTM go farther", attentive, plain),
        better("the Transformer goes farther than the LSTM with attention", ours, attentive),
    ]


def of_agreement(found: dict[str, Any]) -> Finding:
    """What the verbs say."""
    agreed = found["agreement"]
    ours, _, plain = MODELS
    counts = agreed[ours]["count"]
    last = max((n for n, count in enumerate(counts) if count >= 30), default=0)
    scored = {name: agreed[name]["accuracy"][last] for name in MODELS}
    near = agreed[ours]["accuracy"][0]
    checks = (
        Check(f"{ours} is right of 90 % of the nearest ({near:.0f} %)", near >= 90),
        Check(f"at least 30 pairs ({counts[last]})", counts[last] >= 30),
    )
    told = ", ".join(f"{name} {scored[name]:.1f} %" for name in MODELS)
    return compared(
        "agreement: the Transformer is right more often than an LSTM without attention",
        [scored[ours]], [scored[plain]], MARGIN, f"Over {band(last)} words: {told}.", checks,
    )  # fmt: skip


def band(number: int) -> str:
    """`3 to 5`, `9 and more`."""
    low, high = BANDS[number]
    return f"{low} to {high}" if high < 99 else f"{low} and more"


def tables(found: dict[str, Any]) -> list[Table]:
    made = []
    for what, keys in TASKS.items():
        rows = [["model", "parameters", *(f"{d}" for d in found["distances"])]]
        for name in MODELS:
            runs = found[what][name]
            cells = [spread(each) for each in zip(*(run["accuracy"] for run in runs), strict=True)]
            rows.append([name, f"{runs[0]['parameters']:,}", *cells])
        told = "4 key words" if keys == 4 else "all words"
        made.append(Table(f"{what.capitalize()}: {told}, % in place, by distance in words", rows))
    agreed = found["agreement"]
    counts = agreed[MODELS[0]]["count"]
    head = ["model", "parameters", "test BLEU"]
    more = [[*head, *(f"{band(n)} ({count:,})" for n, count in enumerate(counts))]]
    for name in MODELS:
        each = agreed[name]
        pairs = zip(each["accuracy"], counts, strict=True)
        cells = [f"{value:.1f}" if count else "" for value, count in pairs]
        more.append([name, f"{each['parameters']:,}", f"{each['test']['test']:.1f}", *cells])
    title = "Right verbs, %, by words between subject and verb (number of pairs)"
    return [*made, Table(title, more)]


def plots(found: dict[str, Any]) -> list[Plot]:
    made = []
    for what in TASKS:
        lines = []
        for name in MODELS:
            every = list(zip(*(run["accuracy"] for run in found[what][name]), strict=True))
            low, high = [min(y) for y in every], [max(y) for y in every]
            lines.append(Line(name, found["distances"], [mean(y) for y in every], low, high))
        title = f"{what.capitalize()} over a distance"
        made.append(Plot(what, title, "distance, words", "% in place", lines, log_x=True))
    agreed = found["agreement"]
    used = [n for n, count in enumerate(agreed[MODELS[0]]["count"]) if count]
    lines = [
        Line(name, [BANDS[n][0] for n in used], [agreed[name]["accuracy"][n] for n in used])
        for name in MODELS
    ]
    title = "Verbs that agree with their subjects"
    at = "words between subject and verb (at least)"
    return [*made, Plot("agreement", title, at, "%", lines)]
