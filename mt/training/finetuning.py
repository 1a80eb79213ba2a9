"""Training that begins with the weights of another model: what it inherits, what it leaves alone.

Only safetensors and JSON are read of the other model, and only once: the run that begins with it
has from then on all that it needs.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.checkpoints import averaging, checkpoint, run_directory
from mt.checkpoints.bundle import open_loaded_model
from mt.checkpoints.run_directory import LoadedModel
from mt.config.recipe import Recipe, dump
from mt.errors import ConfigError, ModelError
from mt.models.modules.head_gates import is_gate
from mt.vocabulary import learn
from mt.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "training.initialise_from"


def inherited_vocabulary(recipe: Recipe, run: Path | None = None) -> Vocabulary | None:
    """The vocabulary that a recipe has from another model; None: it has one of its own.

    Args:
        recipe: what is trained.
        run: its run directory; once it has been begun, the other model is not asked any more.

    Raises:
        ModelError: the other model is none, or `vocabulary.path` names another vocabulary.
    """
    if recipe.training.initialise_from is None:
        return None
    if (
        run is not None
        and (run / "vocabulary.json").exists()
        and averaging.last_checkpoints(run, 1)
    ):
        return Vocabulary.load(run)
    path = Path(recipe.training.initialise_from)
    known = open_loaded_model(path).vocabulary
    if recipe.vocabulary.path is not None:
        named = learn.open_existing(recipe.vocabulary)
        if _pieces_digest(named) != _pieces_digest(known):
            what = (
                f"{_describe_vocabulary(named)}, that of {path} has {_describe_vocabulary(known)}"
            )
            advice = "leave out vocabulary.path to have the vocabulary of the model"
            raise ModelError("VOCAB-MISMATCH", recipe.vocabulary.path, what, advice)
    return known


def _pieces_digest(known: Vocabulary) -> str:
    """The hash of a vocabulary, whatever its control pieces are called."""
    return Vocabulary(known.kind, known.source, known.target, {}).digest


def _describe_vocabulary(known: Vocabulary) -> str:
    sizes = dict.fromkeys((known.source_size, known.target_size))
    return f"{' and '.join(f'{size:,}' for size in sizes)} pieces ({known.digest[:16]})"


def read_initial_weights(recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights that training begins with, and what they are, for `resolved.json`.

    Raises:
        ModelError: there are none, or they are damaged.
    """
    opened = open_loaded_model(Path(recipe.training.initialise_from or ""))
    found = checkpoint.model_weights(opened.model())
    return found, {"path": str(opened.folder), "step": opened.step, "weights": _digest(found)}


def _digest(tensors: dict[str, Tensor]) -> str:
    from safetensors.torch import save

    return hashlib.sha256(save(tensors)).hexdigest()


def initialize_from(model: nn.Module, found: dict[str, Tensor], recipe: Recipe) -> None:
    """Copy the weights of `read_initial_weights` into a model; its new gates stay as they are.

    Raises:
        ModelError: it is a model of another shape; names tensors and settings that differ.
    """
    gates = {name: p for name, p in model.named_parameters() if is_gate(name)}  # may be new
    try:
        checkpoint.load_into(model, {**gates, **found}, Path(recipe.training.initialise_from or ""))
    except ModelError as error:
        (where, what), *others = error.problems
        advice = "give the model section the values of that run (`mt config RUN/config.yaml`)"
        differing = _differing_settings(recipe)
        raise ModelError(
            "CKPT-SHAPE", where, what, advice, [*others, *((KEY, each) for each in differing)]
        ) from None


def _differing_settings(recipe: Recipe) -> list[str]:
    """The settings of the model that are not those of the one it begins with."""
    opened: LoadedModel = open_loaded_model(Path(recipe.training.initialise_from or ""))
    old, new = dump(opened.recipe)["model"], dump(recipe)["model"]
    return [
        f"model.{key}: that model has {before!r}, the recipe {now!r}"
        for key, before, now in run_directory.differing_keys(old, new)
        if "dropout" not in key
    ]


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> int:
    """Leave the parameters alone whose names match a pattern; how many weights these are.

    Raises:
        ConfigError: a pattern matches none, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    frozen: set[str] = set()
    for pattern in patterns:
        found = [name for name in named if fnmatchcase(name, pattern)]
        if not found:
            near = _similar_names(pattern, named)
            what = f"{pattern!r} matches no parameter; there are: {', '.join(near)}, ..."
            advice = "patterns are of shells: encoder.*, *embedding*, *.norm.weight"
            raise ConfigError("FREEZE-NONE", "training.freeze", what, advice)
        frozen.update(found)
    if len(frozen) == len(named):
        what, advice = "nothing is left to train", "freeze less"
        raise ConfigError("FREEZE-ALL", "training.freeze", what, advice)
    for name in frozen:
        named[name].requires_grad_(False)
    return sum(named[name].numel() for name in frozen)


def _similar_names(pattern: str, names: Iterable[str]) -> list[str]:
    """A few names, or beginnings of names, that the pattern may have meant."""
    choices: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            choices[".".join(parts[:end])] = None
    plain = pattern.strip("*.")
    return difflib.get_close_matches(plain, choices, n=4, cutoff=0.4) or list(choices)[:4]
