"""The native engine: a trained run, a checkpoint of it, a bundle, or several as an ensemble.

What needs torch is `mt/searcher.py`, imported when a model is opened here and not by processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt.checkpoints import bundle, run_directory
from mt.decoding import shortlist
from mt.decoding.text_translator import Profile, TextTranslator, search_config
from mt.decoding.types import Engine, EngineOptions
from mt.decoding.worker_pool import open_pool
from mt.errors import ModelError
from mt.runtime import memory
from mt.runtime.device import Precision, physical_cores, pick_device, use_threads

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
    """The engine of a run, its best checkpoint or the one that is asked for, or of a bundle.

    Raises:
        ModelError: no such checkpoint, a damaged one, or weights of another model; or the models
            of an ensemble have not all the same vocabulary.
        ConfigError: the search wants a shortlist and there is none.
        MachineError: the device is not there.
    """
    if options.processes > 1:
        return open_pool("native", path, options, share_of_cores(options))
    from mt.decoding.torch_searcher import pick_precision

    opened, *others = _opened([path, *options.ensemble_paths], options.checkpoint)
    memory.keep_freed_memory()
    device = pick_device(options.device or "auto")
    use_threads(options.threads or "auto")
    recipe = opened.recipe
    if search_config(recipe.search, options.search).shortlist:
        shortlist.load_shortlist(
            opened.run, opened.vocabulary.digest
        )  # what is wrong is told at once
    model = opened.model()
    precision = pick_precision(options.precision or "auto", device)
    more = [(other.model().to(device), other.recipe) for other in others]
    return native_engine(
        model.to(device), opened.vocabulary, recipe, device, precision, options, more, opened.run
    )


def _opened(paths: Sequence[Path], choice: str | None) -> list[LoadedModel]:
    """The models of an ensemble, whose weights nobody has read yet.

    Raises:
        ModelError: two have different vocabularies.
    """
    opened = [bundle.open_loaded_model(path, choice) for path in paths]
    first, *digests = [each.vocabulary.digest for each in opened]
    for path, digest in zip(paths[1:], digests, strict=True):
        if digest != first:
            what = f"its vocabulary is {digest[:16]}, that of {paths[0]} is {first[:16]}"
            advice = "an ensemble takes models of one vocabulary; see vocabulary.path"
            raise ModelError("VOCAB-MISMATCH", path, what, advice)
    return opened


def share_of_cores(options: EngineOptions) -> int:
    """Threads of each process: what was asked, else an equal share of the cores."""
    return options.threads or max(1, physical_cores() // options.processes)


def native_engine(
    model: nn.Module, vocabulary: Vocabulary, recipe: Recipe, device: torch.device,
    precision: Precision, options: EngineOptions | None = None,
    others: Sequence[tuple[nn.Module, Recipe]] = (), run: Path | None = None,
) -> TextTranslator:  # fmt: skip
    """The engine of a model that is already on its device, or of an ensemble of it and others.

    On a CPU the weights of now are packed into them, until `mt.linear.pack(model, None)`.
    `run` is where its shortlist lies; without one, as in training, the search knows of none.
    """
    from mt.decoding.torch_searcher import TorchSearcher

    recipes = [recipe, *(each for _, each in others)]
    positions = [getattr(each.model, "max_length", None) for each in recipes]
    profile = Profile(
        languages=recipe.direction,
        longest=min(each.data.max_length for each in recipes),
        positions=min((each for each in positions if each), default=None),
        search=recipe.search,
    )
    models = [model, *(other for other, _ in others)]
    searcher = TorchSearcher(models, vocabulary, device, precision, run)
    return TextTranslator(searcher, vocabulary, profile, options or EngineOptions())
