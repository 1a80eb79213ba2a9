"""The native engine: a trained run, a checkpoint of it, a bundle, or several as an ensemble.

torch is imported when a model is opened in this process, and not by the parent of a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt.checkpoints import bundle, run_directory
from mt.data.sentences import ANY_LENGTHS, UsualLengths
from mt.decoding.shortlist import load_shortlist
from mt.decoding.text_translator import Profile, TextTranslator, search_config
from mt.decoding.types import Engine, EngineOptions
from mt.decoding.worker_pool import open_pool
from mt.errors import ModelError
from mt.runtime import memory
from mt.runtime.device import Precision, pick_device, use_threads

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mt.checkpoints.run_directory import LoadedModel
    from mt.config.recipe import Recipe
    from mt.vocabulary.vocabulary import Vocabulary


def accepts(path: Path) -> bool:
    """Whether a run directory, a checkpoint folder in one, or a bundle lies at `path`."""
    return run_directory.is_run(path) or bundle.is_bundle(path)


def open(path: Path, options: EngineOptions) -> Engine:
    """The engine of a run, by default of its best checkpoint, or of a bundle.

    Raises:
        ModelError: a checkpoint is missing, damaged or of another model, or the models of an
            ensemble have different vocabularies.
        ConfigError: the search needs a shortlist and there is none.
        MachineError: the device is not there.
    """
    if options.processes > 1:
        return open_pool("native", path, options)
    from mt.decoding.torch_searcher import pick_precision

    opened = _open_models([path, *options.ensemble_paths], options.checkpoint)
    first = opened[0]
    memory.keep_freed_memory()
    device = pick_device(options.device or "auto")
    use_threads(options.threads or "auto")
    if search_config(first.recipe.search, options.search).shortlist:
        load_shortlist(first.run, first.vocabulary.digest)  # reports an error before the weights
    try:
        model, *others = (each.model().to(device) for each in opened)
    except (ModelError, FileNotFoundError):
        if all(each.folder.exists() for each in opened):
            raise
        return open(path, options)  # a training has deleted a checkpoint and has another
    precision = pick_precision(options.precision or "auto", device)
    more = [(other, each.recipe) for other, each in zip(others, opened[1:], strict=True)]
    return native_engine(
        model, first.vocabulary, first.recipe, device, precision, options, more, first.run,
        UsualLengths.of(first.report),
    )  # fmt: skip


def _open_models(paths: Sequence[Path], choice: str | None) -> list[LoadedModel]:
    """The models of an ensemble, their weights not yet read.

    Raises:
        ModelError: two have different vocabularies.
    """
    models = [bundle.open_loaded_model(path, choice) for path in paths]
    first, *digests = [each.vocabulary.digest for each in models]
    for path, digest in zip(paths[1:], digests, strict=True):
        if digest != first:
            what = f"its vocabulary is {digest[:16]}, that of {paths[0]} is {first[:16]}"
            advice = "an ensemble takes models of one vocabulary; see vocabulary.path"
            raise ModelError("VOCAB-MISMATCH", path, what, advice)
    return models


def native_engine(
    model: nn.Module, vocabulary: Vocabulary, recipe: Recipe, device: torch.device,
    precision: Precision, options: EngineOptions | None = None,
    others: Sequence[tuple[nn.Module, Recipe]] = (), run: Path | None = None,
    usual: UsualLengths = ANY_LENGTHS,
) -> TextTranslator:  # fmt: skip
    """The engine of a model on its device, or of an ensemble of it and `others`.

    On a CPU it packs the present weights into the models, until `linear.pack(model, None)`.
    A shortlist is read from `run`; without one, as in training, there is none. `usual`: see
    `Profile`.
    """
    from mt.decoding.torch_searcher import TorchSearcher

    recipes = [recipe, *(each for _, each in others)]
    positions = [getattr(each.model, "max_length", None) for each in recipes]
    profile = Profile(
        languages=recipe.direction,
        longest=min(each.data.max_length for each in recipes),
        positions=min((each for each in positions if each), default=None),
        search=recipe.search,
        usual=usual,
    )
    models = [model, *(other for other, _ in others)]
    searcher = TorchSearcher(models, vocabulary, device, precision, run)
    return TextTranslator(searcher, vocabulary, profile, options or EngineOptions())
