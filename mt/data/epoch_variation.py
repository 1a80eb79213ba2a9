"""Training pairs that differ from epoch to epoch: augmented, then segmented in other ways.

The pairs of an epoch are a function of (seed, epoch) and of the corpus, so a run resumes exactly.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from mt.config.recipe import Recipe
from mt.data.augmentation import Augmenter
from mt.data.corpus import EncodedPairs
from mt.data.subword_regularization import SubwordRegularizer
from mt.vocabulary.vocabulary import Vocabulary


class EpochVariation:
    """Varies pairs by `data.augment` and `vocabulary.sampling` of a recipe.

    Raises:
        ConfigError: the vocabulary is not of the kind that `vocabulary.sampling` needs.
    """

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary) -> None:
        self.steps: list[Augmenter | SubwordRegularizer] = []
        limit = recipe.data.max_length
        if recipe.data.augment.changes:
            self.steps.append(Augmenter(recipe.data.augment, vocabulary, limit))
        if recipe.vocabulary.sampling.kinds:
            self.steps.append(SubwordRegularizer(recipe.vocabulary.sampling, vocabulary, limit))

    def __bool__(self) -> bool:
        """Whether anything varies."""
        return bool(self.steps)

    def __call__(self, pairs: EncodedPairs, *seed: int) -> EncodedPairs:
        """Return the pairs, in their order, varied by a seed."""
        for step in self.steps:
            pairs = step(pairs, *seed)
        return pairs

    def max_lengths(self, pairs: EncodedPairs) -> tuple[int, int]:
        """Return the most ids of each side that a pair can get."""
        lengths = [step.max_lengths(pairs) for step in self.steps]
        return max((a for a, _ in lengths), default=1), max((b for _, b in lengths), default=1)


class EpochCorpora:
    """A prepared corpus varied for each epoch; a thread prepares the next epoch."""

    def __init__(self, vary: EpochVariation, corpus: EncodedPairs, seed: int) -> None:
        self.vary, self.corpus, self.seed = vary, corpus, seed
        self.epochs: dict[int, Future[EncodedPairs]] = {}

    def __call__(self, epoch: int) -> EncodedPairs:
        """Return the pairs of an epoch."""
        if epoch not in self.epochs:
            self._submit(epoch)
        return self.epochs[epoch].result()

    def start_epoch(self, epoch: int) -> EncodedPairs:
        """Return the pairs of an epoch, and begin with those of the next one."""
        pairs = self(epoch)
        self._submit(epoch + 1)
        return pairs

    def _submit(self, epoch: int) -> None:
        thread = ThreadPoolExecutor(1)
        self.epochs = {epoch: thread.submit(self.vary, self.corpus, self.seed, epoch)}
        thread.shutdown(wait=False)  # the thread ends with its task
