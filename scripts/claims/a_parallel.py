"""Claim a: who can work on all positions at once, in training and in decoding."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import nn

from claims import timing, training
from claims.lab import Lab
from claims.recipes import demo, recurrent
from claims.store import Task
from claims.verdicts import Check, Finding, Judgement, Line, Plot, Table, compared, within
from mt.config.plugins import plugin
from mt.data.prepare import prepare
from mt.interfaces import Batch, Objective, Seq2Seq
from mt.runtime import memory
from mt.runtime.device import use_threads
from mt.special_tokens import BEGIN, END, FIRST_PIECE
from mt.training.step import ModelWithLoss, accumulate_gradients

TITLE = "Parallel over positions in training, serial in decoding"
CLAIM = """
A Transformer is trained on all positions of a sentence at once, an LSTM must go from one to the
next; so the Transformer trains faster, the more so the longer the sentences. In decoding both are
serial: a word needs the word before it.
"""
EXPERIMENT = """
Updates of `mt` on random sentences of one length, as many target tokens in each batch whatever the
length, for models of about as many weights, in interleaved rounds. For decoding: the time of the
decoder for all positions at once, given the target, against that for one position after another
with the cache, as a search does. All on a CPU, which has few things that it can do at once; a GPU
would punish the serial side more.
"""
NOTES: tuple[str, ...] = ()
MODELS = ("Transformer", "LSTM with attention", "LSTM without attention")


def measure(lab: Lab) -> dict[str, Any]:
    lengths = lab.choose([8, 16, 32, 64, 128, 256, 512], [8, 32, 128, 512], [4, 8])
    arguments = {
        "recipes": {name: recurrent(demo(lab), name) for name in MODELS},
        "lengths": lengths,
        "rounds": lab.choose(5, 3, 2),
        "tokens": lab.choose(2048, 2048, 16),
    }
    decoded = {**arguments, "lengths": lengths[:-1], "sentences": lab.choose(16, 16, 2)}
    del decoded["tokens"]
    tasks = {
        "training": Task("a_parallel:trained", arguments),
        "decoding": Task("a_parallel:decoded", decoded),
    }
    found = lab.measure(tasks, alone=True)
    return {"lengths": lengths, **found}


# --------------------------------------------------------------------------- measurements


def steps_of(recipes: dict[str, dict[str, Any]]) -> dict[str, tuple[ModelWithLoss, Any]]:
    """Model and objective, and optimizer, of each recipe, untrained."""
    use_threads("auto")
    memory.keep_freed_memory()
    made: dict[str, tuple[ModelWithLoss, Any]] = {}
    for name, values in recipes.items():
        recipe = training.recipe_of(values)
        known = prepare(recipe, lambda line: None).vocabulary
        torch.manual_seed(1)
        model = plugin("models", recipe.model.kind).build(recipe.model, known)
        objective = plugin("objectives", recipe.objective.kind).build(
            recipe.objective, model, known, None
        )
        step = ModelWithLoss(model, objective, "fp32")
        optimizer = plugin("optimizers", recipe.optimizer.kind).build(
            recipe.optimizer, list(step.named_parameters())
        )
        made[name] = step, optimizer
    return made


def random_batch(sentences: int, length: int, size: int) -> Batch:
    """Sentences of random pieces, all of one length, their end included."""
    source, labels = (torch.randint(FIRST_PIECE, size, (sentences, length)) for _ in range(2))
    source[:, -1] = labels[:, -1] = END
    begin = torch.full((sentences, 1), BEGIN)
    lengths = torch.full((sentences,), length)
    rows = torch.arange(sentences)
    return Batch(source, torch.cat((begin, labels), 1), lengths, lengths, rows)


def sizes_of(made: dict[str, tuple[ModelWithLoss, Any]]) -> dict[str, int]:
    """Parameters of each model."""
    return {name: sum(p.numel() for p in step.parameters()) for name, (step, _) in made.items()}


def trained(
    folder: Path, recipes: dict[str, dict[str, Any]], lengths: list[int], rounds: int, tokens: int
) -> dict[str, Any]:
    """Seconds of an update by model, by length, by round."""
    made = steps_of(recipes)
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def update(name: str, batch: Batch) -> None:
        step, optimizer = made[name]
        accumulate_gradients(step, cast(Objective, step.objective), [batch], scaler)
        nn.utils.clip_grad_norm_(step.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()

    size = min(len(step.model.output()[0]) for step, _ in made.values())
    batches = {n: random_batch(max(1, tokens // n), n, size) for n in lengths}
    sides = {
        f"{name} {n}": (lambda name=name, batch=batch: update(name, batch))
        for n, batch in batches.items()
        for name in made
    }
    found = timing.interleaved(sides, rounds)
    return {
        "parameters": sizes_of(made),
        "tokens": {str(n): batch.labels.numel() for n, batch in batches.items()},
        "seconds": {name: [found[f"{name} {n}"] for n in lengths] for name in made},
    }


@torch.inference_mode()
def decoded(
    folder: Path, recipes: dict[str, dict[str, Any]], lengths: list[int], rounds: int,
    sentences: int,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of the decoder for all positions `at once`, and `in turn`."""
    made = steps_of(recipes)
    sides = {}
    for name, (step, _) in made.items():
        model = cast(Any, step.model.eval())
        for n in lengths:
            batch = random_batch(sentences, n, len(model.output()[0]))
            sides[f"{name} {n} at once"] = at_once(model, batch)
            sides[f"{name} {n} in turn"] = in_turn(model, batch)
    found = timing.interleaved(sides, rounds)
    return {
        way: {name: [found[f"{name} {n} {way}"] for n in lengths] for name in made}
        for way in ("at once", "in turn")
    } | {"lengths": lengths}


def at_once(model: Seq2Seq, batch: Batch) -> timing.Work:
    """Hidden states of all positions of a target that is known."""
    memory = model.encode(batch.source)
    return lambda: model.decode(batch.inputs, memory)


def in_turn(model: Seq2Seq, batch: Batch) -> timing.Work:
    """The same, one position after another, with the cache."""
    memory = model.encode(batch.source)

    def work() -> None:
        cache = model.start(memory, 1, batch.inputs.size(1))
        for position in batch.inputs.split(1, dim=1):
            model.decode(position, memory, cache)

    return work


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    lengths, trained, decoding = found["lengths"], found["training"], found["decoding"]
    tokens = [trained["tokens"][str(n)] for n in lengths]
    speed = {
        name: [[count / s for s in rounds] for count, rounds in zip(tokens, each, strict=True)]
        for name, each in trained["seconds"].items()
    }
    ours, attentive, plain = MODELS
    sizes = trained["parameters"]
    alike = max(sizes.values()) / min(sizes.values())
    fair = Check(f"sizes differ by at most a fifth ({alike:.2f} times)", alike <= 1.2)
    longest = lengths[-1]

    def faster(other: str) -> list[float]:
        return [a / b for a, b in zip(speed[ours][-1], speed[other][-1], strict=True)]

    def kept(name: str) -> list[float]:
        """The speed at the longest sentences as a share of that at the shortest."""
        return [a / b for a, b in zip(speed[name][-1], speed[name][0], strict=True)]

    findings = []
    for other in (attentive, plain):
        ratios = faster(other)
        findings.append(
            compared(
                f"at {longest} words the Transformer trains faster than the {other}",
                ratios, [1.0] * len(ratios), 0.1,
                f"{timing.told(ratios)} times as fast.", (fair,),
            )
        )  # fmt: skip
    findings.append(
        compared(
            "the LSTM with attention loses more of its speed with length than the Transformer",
            kept(ours), kept(attentive), 0.0,
            f"Of their speed at {lengths[0]} words they keep at {longest}: " + ", ".join(
                f"{name} {100 * median(kept(name)):.0f} %" for name in MODELS) + ".", (fair,),
        )
    )  # fmt: skip
    ratios = {
        name: [
            [b / a for a, b in zip(*each, strict=True)]
            for each in zip(decoding["at once"][name], decoding["in turn"][name], strict=True)
        ]
        for name in MODELS
    }
    last = decoding["lengths"][-1]
    serial = ratios[ours][-1]
    findings.append(
        compared(
            f"the Transformer's decoder is at least 3 times as fast on {last} known positions at "
            "once as one by one", serial, [3.0] * len(serial), 0.0,
            f"{timing.told(serial)} times.",
        )
    )  # fmt: skip
    loop = median(ratios[attentive][-1])
    findings.append(
        Finding(
            "an LSTM with attention gains less than that from knowing the target",
            within(loop, 0.0, median(serial)),
            f"{loop:.1f} times at {last} positions.",
        )
    )
    drawn = plots(lengths, speed, decoding)
    return Judgement(findings, tables(lengths, speed, sizes, decoding), drawn)


def tables(
    lengths: list[int], speed: dict[str, list[list[float]]], sizes: dict[str, int],
    decoding: dict[str, Any],
) -> list[Table]:  # fmt: skip
    rows = [["words", *(f"{name} ({sizes[name]:,})" for name in MODELS)]]
    for number, n in enumerate(lengths):
        rows.append([str(n), *(timing.told(speed[name][number]) for name in MODELS)])
    more = [["positions", *(f"{name}, {way}" for name in MODELS for way in ("at once", "in turn"))]]
    for number, n in enumerate(decoding["lengths"]):
        cells = [
            f"{1000 * median(decoding[way][name][number]):,.1f}"
            for name in MODELS
            for way in ("at once", "in turn")
        ]
        more.append([str(n), *cells])
    return [
        Table("Training, target tokens a second (parameters), median of rounds (lowest to highest)",
              rows),
        Table("The decoder alone, ms for a batch, median of rounds", more),
    ]  # fmt: skip


def plots(
    lengths: list[int], speed: dict[str, list[list[float]]], decoding: dict[str, Any]
) -> list[Plot]:
    return [
        Plot(
            "training", "Training speed against length", "words a sentence",
            "target tokens a second",
            [Line(name, lengths, [median(r) for r in speed[name]], [min(r) for r in speed[name]],
                  [max(r) for r in speed[name]]) for name in MODELS],
            log_x=True, log_y=True,
        ),
        Plot(
            "decoding", "The decoder: all positions at once, or in turn", "positions", "seconds",
            [Line(f"{name}, {way}", decoding["lengths"],
                  [median(rounds) for rounds in decoding[way][name]])
             for name in MODELS for way in ("at once", "in turn")],
            log_x=True, log_y=True,
        ),
    ]  # fmt: skip
