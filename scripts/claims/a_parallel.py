"""Claim a: who can work on all positions at once, in training and in decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from bench.harness import divide, summary, time_in_turn
from bench.updates import Updates

from claims import training
from claims.lab import Lab
from claims.recipes import demo, recurrent
from claims.store import Task
from claims.verdicts import Check, Finding, Line, Part, Plot, Table, band, find_larger, within
from mt.interfaces import Batch, Seq2Seq
from mt.runtime import memory
from mt.runtime.device import use_threads
from mt.special_tokens import BEGIN, END, FIRST_PIECE

TITLE = "Parallel over positions in training, serial in decoding"
CLAIM = """
A Transformer is trained on all positions of a sentence at once, an LSTM must go from one to the
next; so the Transformer trains faster, the more so the longer the sentences. In decoding both are
serial: a word needs the word before it.
"""
EXPERIMENT = """
Updates of `mt` on random sentences of one length, the same number of target tokens in each batch at
every length, for models of about as many weights, in interleaved rounds. For decoding: the time of
the decoder for all positions at once, given the target, against that for one position after another
with the cache, as a search does. All on a CPU, which has little parallelism; on a GPU the serial
side would lose more.
"""
MODELS = ("Transformer", "LSTM with attention", "LSTM without attention")
WAYS = ("at once", "in turn")


def measure(lab: Lab) -> dict[str, Any]:
    lengths = lab.choose([8, 16, 32, 64, 128, 256, 512], [8, 32, 128, 512], [4, 8])
    arguments = {
        "recipes": {name: recurrent(demo(lab), name) for name in MODELS},
        "rounds": lab.choose(5, 3, 2),
    }
    tokens, sentences = lab.choose(2048, 2048, 16), lab.choose(16, 16, 2)
    tasks = {
        "training": Task("a_parallel:trained", {**arguments, "lengths": lengths, "tokens": tokens}),
        "decoding": Task(
            "a_parallel:decoded", {**arguments, "lengths": lengths[:-1], "sentences": sentences}
        ),
    }
    return {"lengths": lengths, **lab.measure(tasks, alone=True)}


# --------------------------------------------------------------------------- measurements


def build_models(recipes: dict[str, dict[str, Any]]) -> dict[str, Updates]:
    """Return untrained models with their updates."""
    use_threads("auto")
    memory.keep_freed_memory()
    return {name: training.build_updates(values)[0] for name, values in recipes.items()}


def random_batch(sentences: int, length: int, size: int) -> Batch:
    """Return sentences of random pieces, all of one length, their end included."""
    source, labels = (torch.randint(FIRST_PIECE, size, (sentences, length)) for _ in range(2))
    source[:, -1] = labels[:, -1] = END
    begin = torch.full((sentences, 1), BEGIN)
    lengths = torch.full((sentences,), length)
    rows = torch.arange(sentences)
    return Batch(source, torch.cat((begin, labels), 1), lengths, lengths, rows)


def trained(
    folder: Path, recipes: dict[str, dict[str, Any]], lengths: list[int], rounds: int, tokens: int
) -> dict[str, Any]:
    """Measure the seconds of an update by model, by length, by round."""
    models = build_models(recipes)
    size = min(len(each.step.model.output()[0]) for each in models.values())
    batches = {n: random_batch(max(1, tokens // n), n, size) for n in lengths}
    sides = {
        f"{name} {n}": partial(update, [batch])
        for n, batch in batches.items()
        for name, update in models.items()
    }
    found = time_in_turn(sides, rounds)
    return {
        "parameters": {
            name: sum(p.numel() for p in each.step.parameters()) for name, each in models.items()
        },
        "tokens": {str(n): batch.labels.numel() for n, batch in batches.items()},
        "seconds": {name: [found[f"{name} {n}"] for n in lengths] for name in models},
    }


@torch.inference_mode()
def decoded(
    folder: Path, recipes: dict[str, dict[str, Any]], lengths: list[int], rounds: int,
    sentences: int,
) -> dict[str, Any]:  # fmt: skip
    """Measure the seconds of the decoder for all positions `at once`, and `in turn`."""
    sides: dict[str, Callable[[], object]] = {}
    for name, update in build_models(recipes).items():
        model = cast(Any, update.step.model.eval())
        for n in lengths:
            batch = random_batch(sentences, n, len(model.output()[0]))
            sides[f"{name} {n} at once"] = decode_at_once(model, batch)
            sides[f"{name} {n} in turn"] = decode_in_turn(model, batch)
    found = time_in_turn(sides, rounds)
    return {
        way: {name: [found[f"{name} {n} {way}"] for n in lengths] for name in recipes}
        for way in WAYS
    } | {"lengths": lengths}


def decode_at_once(model: Seq2Seq, batch: Batch) -> Callable[[], object]:
    """Return work that decodes all positions of a known target together."""
    return partial(model.decode, batch.inputs, model.encode(batch.source))


def decode_in_turn(model: Seq2Seq, batch: Batch) -> Callable[[], object]:
    """Return work that decodes one position after another, with the cache."""
    memory = model.encode(batch.source)

    def work() -> None:
        cache = model.start(memory, 1, batch.inputs.size(1))
        for position in batch.inputs.split(1, dim=1):
            model.decode(position, memory, cache)

    return work


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    lengths, decoding = found["lengths"], found["decoding"]
    speed = {
        name: [
            [found["training"]["tokens"][str(n)] / seconds for seconds in rounds]
            for n, rounds in zip(lengths, each, strict=True)
        ]
        for name, each in found["training"]["seconds"].items()
    }
    sizes = found["training"]["parameters"]
    yield from judge_training(lengths, speed, sizes)
    yield from judge_decoding(decoding)
    yield Table(
        "Training, target tokens a second (parameters), median of rounds (lowest to highest)",
        ["words", *(f"{name} ({sizes[name]:,})" for name in MODELS)],
        [(n, *(summary(speed[m][row]) for m in MODELS)) for row, n in enumerate(lengths)],
    )
    sides = {f"{name}, {way}": decoding[way][name] for name in MODELS for way in WAYS}
    yield Table(
        "The decoder alone, ms for a batch, median of rounds", ["positions", *sides],
        [(n, *(f"{1000 * median(each[row]):,.1f}" for each in sides.values()))
         for row, n in enumerate(decoding["lengths"])],
    )  # fmt: skip
    yield Plot(
        "training", "Training speed against length", "words a sentence", "target tokens a second",
        [band(name, lengths, speed[name], median) for name in MODELS], log_x=True, log_y=True,
    )  # fmt: skip
    yield Plot(
        "decoding", "The decoder: all positions at once, or in turn", "positions", "seconds",
        [Line(name, decoding["lengths"], [median(rounds) for rounds in each])
         for name, each in sides.items()],
        log_x=True, log_y=True,
    )  # fmt: skip


def judge_training(
    lengths: list[int], speed: dict[str, list[list[float]]], sizes: dict[str, int]
) -> Iterator[Finding]:
    ours, attentive, plain = MODELS
    alike = max(sizes.values()) / min(sizes.values())
    fair = Check(f"sizes differ by at most a fifth ({alike:.2f} times)", alike <= 1.2)
    for other in (attentive, plain):
        ratios = divide(speed[ours][-1], speed[other][-1])
        yield find_larger(
            f"at {lengths[-1]} words the Transformer trains faster than the {other}",
            ratios, 1.0, 0.1, f"{summary(ratios)} times as fast.", fair,
        )  # fmt: skip
    kept = {name: divide(speed[name][-1], speed[name][0]) for name in MODELS}
    shares = ", ".join(f"{name} {100 * median(each):.0f} %" for name, each in kept.items())
    yield find_larger(
        "the LSTM with attention loses more of its speed with length than the Transformer",
        kept[ours], kept[attentive], 0.0,
        f"Of their speed at {lengths[0]} words they keep at {lengths[-1]}: {shares}.", fair,
    )  # fmt: skip


def judge_decoding(decoding: dict[str, Any]) -> Iterator[Finding]:
    last = decoding["lengths"][-1]
    serial, loop = (
        divide(decoding["in turn"][name][-1], decoding["at once"][name][-1]) for name in MODELS[:2]
    )
    yield find_larger(
        f"the Transformer's decoder is at least 3 times as fast on {last} known positions at "
        "once as one by one", serial, 3.0, 0.0, f"{summary(serial)} times.",
    )  # fmt: skip
    yield Finding(
        "an LSTM with attention gains less than that from knowing the target",
        within(median(loop), 0.0, median(serial)), f"{median(loop):.1f} times at {last} positions.",
    )  # fmt: skip
