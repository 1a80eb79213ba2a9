"""Fine-tuning: initialise and freeze weights.

The other model is read only once, and only its safetensors and JSON; a run that has begun no
longer needs it.
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
from mt.config.recipe import Recipe, dump
from mt.errors import ConfigError, ModelError
from mt.models.modules.head_gates import is_gate
from mt.vocabulary import learn
from mt.vocabulary.vocabulary import FORMAT, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "training.initialise_from"


def inherited_vocabulary(recipe: Recipe, run: Path | None = None) -> Vocabulary | None:
    """Return the vocabulary of the other model; None: the recipe has its own.

    A run that has a checkpoint has its vocabulary in its directory `run`. It keeps one of an
    earlier format, which is learned no more.

    Raises:
        ModelError: the other model is none, or `vocabulary.path` names another vocabulary.
    """
    if run and (run / "vocabulary.json").exists() and averaging.last_checkpoints(run, 1):
        vocabulary = Vocabulary.load(run)
        if recipe.training.initialise_from is not None or vocabulary.format < FORMAT:
            return vocabulary
    if recipe.training.initialise_from is None:
        return None
    path = Path(recipe.training.initialise_from)
    vocabulary = open_loaded_model(path).vocabulary
    if recipe.vocabulary.path is not None:
        named = learn.open_existing(recipe.vocabulary)
        if _pieces_digest(named) != _pieces_digest(vocabulary):
            one, other = _describe_vocabulary(named), _describe_vocabulary(vocabulary)
            advice = "leave out vocabulary.path to have the vocabulary of the model"
            what = f"{one}, that of {path} has {other}"
            raise ModelError("VOCAB-MISMATCH", recipe.vocabulary.path, what, advice)
    return vocabulary


def _pieces_digest(vocabulary: Vocabulary) -> str:
    """Hash a vocabulary without the names of its control pieces."""
    return Vocabulary(vocabulary.kind, vocabulary.source, vocabulary.target, {}, 1).digest


def _describe_vocabulary(vocabulary: Vocabulary) -> str:
    sizes = dict.fromkeys((vocabulary.source_size, vocabulary.target_size))
    return f"{' and '.join(f'{size:,}' for size in sizes)} pieces ({vocabulary.digest[:16]})"


def read_initial_weights(recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights that training begins with, and their origin for `resolved.json`."""
    from safetensors.torch import save

    opened = open_loaded_model(Path(recipe.training.initialise_from or ""))
    weights = checkpoint.model_weights(opened.model())
    digest = hashlib.sha256(save(weights)).hexdigest()
    return weights, {"path": str(opened.folder), "step": opened.step, "weights": digest}


def initialize_from(model: nn.Module, weights: dict[str, Tensor], recipe: Recipe) -> None:
    """Copy the weights of `read_initial_weights` into a model; its new gates stay as they are.

    Raises:
        ModelError: it is a model of another shape; names tensors and settings that differ.
    """
    gates = {name: p for name, p in model.named_parameters() if is_gate(name)}  # may be new
    path = Path(recipe.training.initialise_from or "")
    try:
        checkpoint.load_into(model, {**gates, **weights}, path)
    except ModelError as error:
        old, new = dump(open_loaded_model(path).recipe)["model"], dump(recipe)["model"]
        differing = [
            (KEY, f"model.{key}: that model has {before!r}, the recipe {now!r}")
            for key, before, now in run_directory.differing_keys(old, new)
            if "dropout" not in key
        ]
        (where, what), *others = error.problems
        advice = "give the model section the values of that run (`mt config RUN/config.yaml`)"
        raise ModelError("CKPT-SHAPE", where, what, advice, [*others, *differing]) from None


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> int:
    """Freeze the parameters whose names match a pattern; return how many weights these are.

    Raises:
        ConfigError: a pattern matches none, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    frozen: set[str] = set()
    for pattern in patterns:
        matching = [name for name in named if fnmatchcase(name, pattern)]
        if not matching:
            near = _similar_names(pattern, named)
            what = f"{pattern!r} matches no parameter; there are: {', '.join(near)}, ..."
            advice = "patterns are of shells: encoder.*, *embedding*, *.norm.weight"
            raise ConfigError("FREEZE-NONE", "training.freeze", what, advice)
        frozen.update(matching)
    if len(frozen) == len(named):
        what = "nothing is left to train"
        raise ConfigError("FREEZE-ALL", "training.freeze", what, "freeze less")
    for name in frozen:
        named[name].requires_grad_(False)
    return sum(named[name].numel() for name in frozen)


def _similar_names(pattern: str, names: Iterable[str]) -> list[str]:
    """Return a few names, or beginnings of names, that are like the pattern."""
    split = [name.split(".") for name in names]
    choices = dict.fromkeys(".".join(p[:end]) for p in split for end in range(1, len(p) + 1))
    plain = pattern.strip("*.")
    return difflib.get_close_matches(plain, choices, n=4, cutoff=0.4) or list(choices)[:4]
