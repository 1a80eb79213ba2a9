"""Claim b: whether distance is harder for recurrent networks than for attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from claims import recall as recall_source
from claims import training
from claims.agreement import contrasts
from claims.lab import Lab
from claims.recipes import changed, demo, lasting, recurrent
from claims.store import Task
from claims.verdicts import (
    Check,
    Finding,
    Line,
    Part,
    Plot,
    Table,
    band,
    by_step,
    find_larger,
    over_seeds,
)
from mt.config.schema import Languages
from mt.data.pairs import Pair

TITLE = "Long-distance dependencies"
CLAIM = """
An LSTM passes its memory from word to word, and loses some of it on the way; attention reaches any
word in one step. So a Transformer relates words over a distance at which an LSTM without attention
fails; attention on top of an LSTM repairs that.
"""
EXPERIMENT = """
Recall (`scripts/claims/recall.py`): four random key words between two stretches of random fillers,
as long as the distance; the target is the key words. Copying: all words are key words, as many as
the distance, so that the number of words to remember grows with it. The score is the share of key
words that greedy search puts in their place; all models train on a mixture of the distances, for
the same number of updates. Agreement (`scripts/claims/agreement.py`): in German subordinate clauses
of the demo language the verb is last; each model scores the right sentence and one with the verb in
the wrong number (forced scores). The score is the share of pairs where the right one is more
probable, against the words between subject and verb.
"""
MODELS = ("Transformer", "LSTM with attention", "LSTM without attention")
TASKS: dict[str, int | str] = {"recall": 4, "copying": "all"}
"""How many key words there are."""
BANDS = ((0, 3), (4, 5), (6, 8), (9, 99))
"""Of the distance between subject and verb, in words."""
MARGIN = 5.0


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    distances = lab.choose([2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32], [2, 4])
    sentences, size = lab.choose(100, 60, 4), lab.choose(8000, 4000, 200)
    found: dict[str, Any] = {"seeds": seeds, "distances": distances}
    for what in TASKS:
        found[what] = lab.measure_grid(
            MODELS, seeds,
            lambda name, seed, what=what: Task("b_distance:recalled", {
                "recipe": make_recall(lab, what, name, seed, distances), "distances": distances,
                "sentences": sentences,
            }), what,
        )  # fmt: skip
    tasks = {
        name: Task("b_distance:agreement", {"recipe": recurrent(demo(lab), name), "size": size})
        for name in MODELS
    }
    return found | {"agreement": lab.measure(tasks)}


def make_recall(lab: Lab, what: str, name: str, seed: int, distances: list[int]) -> dict[str, Any]:
    """Return the recipe of a model that recalls."""
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
    """Measure the share of key words recalled at each distance, in %, besides the curves."""
    run = training.trained_run(folder, recipe)
    engine = training.engine_of(run)
    accuracy = []
    for distance in distances:
        config = recall_source.Config(
            size=sentences, distances=(distance,), seed=1000 + distance,
            keys=recipe["data"]["train"][0]["keys"], languages=Languages(**recipe["languages"]),
        )  # fmt: skip
        sources, targets = training.texts(recall_source.read(config))
        found = [translation.text for translation in engine.translate(sources)]
        accuracy.append(100 * fmean(map(recall_of, found, targets)))
    return {"accuracy": accuracy, **training.curves(run)}


def recall_of(text: str, right: str) -> float:
    """Return the share of the right words that are in their place."""
    wanted = right.split()
    return sum(a == b for a, b in zip(text.split(), wanted, strict=False)) / len(wanted)


def agreement(folder: Path, recipe: dict[str, Any], size: int) -> dict[str, Any]:
    """Measure, for each band of distances, the number of pairs and the % that is judged right."""
    run = training.trained_run(folder, recipe)
    every = list(contrasts(size, seed=7))
    pairs = [
        Pair(each.source, text, "en", "de", "contrast")
        for each in every
        for text in (each.right, each.wrong)
    ]
    scores = [score.log_probability for score in training.engine_of(run).score(pairs)]
    right = [a > b for a, b in zip(scores[::2], scores[1::2], strict=True)]
    found: dict[str, Any] = {"count": [], "accuracy": [], **training.curves(run)}
    for low, high in BANDS:
        chosen = [ok for ok, each in zip(right, every, strict=True) if low <= each.distance <= high]
        found["count"].append(len(chosen))
        found["accuracy"].append(100 * fmean(chosen) if chosen else 0.0)
    return found | {"test": training.tests_of(run)}


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    distances = found["distances"]
    for what, keys in TASKS.items():
        accuracy = {name: by_step(found[what][name], "accuracy") for name in MODELS}
        yield from judge_recall(what, distances, accuracy)
        yield Table(
            f"{what.capitalize()}: {'4 key' if keys == 4 else 'all'} words, % in place, by "
            "distance in words", ["model", "parameters", *map(str, distances)],
            [(name, f"{found[what][name][0]['parameters']:,}", *map(over_seeds, accuracy[name]))
             for name in MODELS],
        )  # fmt: skip
        yield Plot(
            what, f"{what.capitalize()} over a distance", "distance, words", "% in place",
            [band(name, distances, accuracy[name]) for name in MODELS], log_x=True,
        )  # fmt: skip
    yield from judge_agreement(found["agreement"])


def judge_recall(
    what: str, distances: list[int], accuracy: dict[str, list[tuple[float, ...]]]
) -> Iterator[Finding]:
    """Compare the models at the longest distance, if they learned the task at the shortest."""
    ours, attentive, plain = MODELS
    for statement, one, other in (
        ("the Transformer goes farther than an LSTM without attention", ours, plain),
        ("attention lets the LSTM go farther", attentive, plain),
        ("the Transformer goes farther than the LSTM with attention", ours, attentive),
    ):
        least = min(accuracy[one][0])
        learned = Check(
            f"{one} is right of 90 % at {distances[0]} words ({least:.0f} %)", least >= 90
        )
        shares = ", ".join(f"{name} {over_seeds(accuracy[name][-1])} %" for name in (one, other))
        yield find_larger(
            f"{what}: {statement}", accuracy[one][-1], accuracy[other][-1], MARGIN,
            f"At {distances[-1]} words: {shares}.", learned,
        )  # fmt: skip


def judge_agreement(agreed: dict[str, Any]) -> Iterator[Part]:
    ours, _, plain = MODELS
    counts = agreed[ours]["count"]
    bands = [f"{low} to {high}" if high < 99 else f"{low} and more" for low, high in BANDS]
    last = max((n for n, count in enumerate(counts) if count >= 30), default=0)
    scored = {name: agreed[name]["accuracy"][last] for name in MODELS}
    near = agreed[ours]["accuracy"][0]
    shares = ", ".join(f"{name} {share:.1f} %" for name, share in scored.items())
    yield find_larger(
        "agreement: the Transformer is right more often than an LSTM without attention",
        [scored[ours]], [scored[plain]], MARGIN, f"Over {bands[last]} words: {shares}.",
        Check(f"{ours} is right of 90 % of the nearest ({near:.0f} %)", near >= 90),
        Check(f"at least 30 pairs ({counts[last]})", counts[last] >= 30),
    )  # fmt: skip
    used = [n for n, count in enumerate(counts) if count]
    rows = [
        (name, f"{each['parameters']:,}", f"{each['test']['test']:.1f}",
         *(f"{each['accuracy'][n]:.1f}" if n in used else "" for n in range(len(BANDS))))
        for name, each in agreed.items()
    ]  # fmt: skip
    yield Table(
        "Right verbs, %, by words between subject and verb (number of pairs)",
        ["model", "parameters", "test BLEU",
         *(f"{name} ({count:,})" for name, count in zip(bands, counts, strict=True))],
        rows,
    )  # fmt: skip
    yield Plot(
        "agreement", "Verbs that agree with their subjects",
        "words between subject and verb (at least)", "%",
        [Line(name, [BANDS[n][0] for n in used], [each["accuracy"][n] for n in used])
         for name, each in agreed.items()],
    )  # fmt: skip
