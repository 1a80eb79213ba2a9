"""Models that have learned a little, for the tests of exports."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tiny_run
import torch

from mt.checkpoints import run_directory, train_state
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.data.collate import pad_rows
from mt.data.pairs import Pair
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError
from mt.special_tokens import BEGIN, END

ctranslate2, huggingface = plugin("exporters", "ctranslate2"), plugin("exporters", "huggingface")

GREEDY, BEAM = EngineOptions(search={"kind": "greedy"}), EngineOptions()

LINES = tiny_run.SOURCES


def some_combinations(options):
    """Each pair of values of two options together at least once, and few combinations."""
    keys = list(options)
    every = [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*options.values())
    ]

    def pairs(one):
        return {frozenset(pair) for pair in itertools.combinations(one.items(), 2)}

    chosen, left = [], set().union(*map(pairs, every))
    while left:
        best = max(every, key=lambda one: len(pairs(one) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


def opened_with(folder, subwords, joint=True, steps=100, **options):
    """A model that has learned a little, so that its sentences end, and what its run opens as."""
    text = tiny_run.RECIPE.replace("KIND", "sentencepiece")
    recipe = validate(Recipe, parse(text, "recipe", folder))
    if options.get("positions") == "learned":
        options["max_length"] = 80
    schema = plugin("models", "transformer").Config
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 2, "decoder_layers": 2}
    config = schema(**{**sizes, **options})
    recipe = recipe.model_copy(update={"model": config})
    torch.manual_seed(7)
    model = plugin("models", "transformer").build(config, subwords[joint])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.3, 0.3)
            elif "norm" in name:
                parameter.uniform_(0.7, 1.3)
    learn(model, subwords[joint], steps)
    state = train_state.TrainState(step=7)
    return model.eval(), run_directory.LoadedModel(
        folder, folder, recipe, subwords[joint], state, {}
    )


def learn(model, known, steps):
    """Some updates on the few sentences that there are."""
    encoded = known.encode_source(tiny_run.SOURCES), known.encode_target(tiny_run.TARGETS)
    source = torch.from_numpy(pad_rows([np.array([*ids, END]) for ids in encoded[0]]))
    target = torch.from_numpy(pad_rows([np.array([BEGIN, *ids, END]) for ids in encoded[1]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        logits = model(source, target[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, target[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def native_engine(model, opened):
    native = plugin("engines", "native")
    device = torch.device("cpu")
    return native.native_engine(model, opened.vocabulary, opened.recipe, device, "fp32")


def texts(engine, options, lines=LINES):
    return [each.text for each in engine.translate(lines, options)]


def scores(engine):
    pairs = [Pair(s, t, "en", "de", "x:1") for s in LINES[:3] for t in tiny_run.TARGETS[:3]]
    return [each.log_probability for each in engine.score(pairs)]


# ------------------------------------------------------------------------------- refusals


def refused(exporter, opened):
    with pytest.raises(ConfigError) as error:
        exporter.check(opened, exporter.Config())
    return str(error.value)
