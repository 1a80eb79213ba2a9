"""The engine that translates at each validation of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from mt.config.plugins import plugin
from mt.runtime.device import Precision

if TYPE_CHECKING:
    from mt.config.recipe import Recipe
    from mt.decoding.text_translator import TextTranslator
    from mt.decoding.torch_searcher import TorchSearcher
    from mt.vocabulary.vocabulary import Vocabulary

MAX_MEMORY_SHARE = 0.05
"""Share of a CUDA device's memory that an engine may keep from one validation to the next."""


class ValidationEngine:
    """A native engine of the weights as they are at each `open`.

    A CUDA device keeps it in between, with its packed weights and captured graphs, where it is
    small: to make them takes seconds.
    """

    def __init__(
        self, vocabulary: Vocabulary, recipe: Recipe, device: torch.device, precision: Precision
    ) -> None:
        # On a CPU always in fp32: rounding should not decide which checkpoint is best.
        self.precision: Precision = precision if device.type == "cuda" else "fp32"
        self.vocabulary, self.recipe, self.device = vocabulary, recipe, device
        self.kept: tuple[nn.Module, TextTranslator, TorchSearcher] | None = None

    @contextmanager
    def open(self, model: nn.Module) -> Iterator[TextTranslator]:
        """Yield an engine of the present weights of a model, which is not packed afterwards."""
        if self.kept is not None and self.kept[0] is model:
            self.kept[2].repack()
        else:
            self.kept = None
            build = plugin("engines", "native").native_engine
            engine = build(model, self.vocabulary, self.recipe, self.device, self.precision)
            self.kept = model, engine, engine.searcher
        _, engine, searcher = self.kept
        try:
            yield engine
        finally:
            searcher.unpack()
            if not self._is_worth_keeping(searcher):
                self.kept = None

    def _is_worth_keeping(self, searcher: TorchSearcher) -> bool:
        if self.device.type != "cuda":
            return False
        total = torch.cuda.get_device_properties(self.device).total_memory
        return searcher.num_bytes() <= MAX_MEMORY_SHARE * total
