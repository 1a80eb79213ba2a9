"""A run directory with a tiny untrained model, made by the real parts."""

from __future__ import annotations

from pathlib import Path

import torch

from mt.checkpoints import checkpoint, run_directory, train_state
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.schema import Languages
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.vocabulary import learn

SOURCES = [
    "A man sleeps in a green room.", "Two dogs play in the grass!", "Is a woman reading a book?",
    "The children run home; it rains.", "A boy eats an apple.", "Girls sing.",
    "The old house is red.",
]  # fmt: skip
TARGETS = [
    "Ein Mann schläft in einem grünen Raum.", "Zwei Hunde spielen im Gras!",
    "Liest eine Frau ein Buch?", "Die Kinder laufen heim; es regnet.",
    "Ein Junge isst einen Apfel.",
    "Mädchen singen.", "Das alte Haus ist rot.",
]  # fmt: skip

RECIPE = """
languages: {source: en, target: de}
data:
  train: [{kind: text, source: train.en, target: train.de}]
  valid: {kind: text, source: train.en, target: train.de}
  test:
    test_one: {kind: text, source: train.en, target: train.de}
    test_two: {kind: text, source: train.en, target: train.en}
  max_length: 40
vocabulary: {kind: KIND, size: 408}
model: {kind: transformer, d_model: 16, n_heads: 2, d_ff: 32, encoder_layers: 1, decoder_layers: 1}
training: {max_steps: 10000}
search: {kind: beam, beams: 3, max_length_extra: 4}
"""


def make(
    folder: Path, kind: str = "sentencepiece", seed: int = 1, model: str | None = None,
    quality: dict[str, float] | None = None,
) -> Path:  # fmt: skip
    """The run directory, with one checkpoint of step 7; `model` is another model section."""
    for name, lines in (("train.en", SOURCES), ("train.de", TARGETS)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    run = folder / "run"
    lines = RECIPE.replace("KIND", kind).splitlines()
    if model is not None:
        lines = [f"model: {model}" if line.startswith("model:") else line for line in lines]
    recipe = validate(Recipe, parse("\n".join(lines), "recipe", folder))
    known = learn.learn_vocabulary(
        recipe.vocabulary, Languages(source="en", target="de"), SOURCES, TARGETS
    )
    torch.manual_seed(seed)
    built = plugin("models", recipe.model.kind).build(recipe.model, known)
    run_directory.create_run(run, recipe, known, {"precision": "fp32", "threads": 1})
    state = train_state.TrainState(step=7, quality=quality)
    checkpoint.save_checkpoint(run, checkpoint.checkpoint_name(7), built, state, metadata={})
    return run
