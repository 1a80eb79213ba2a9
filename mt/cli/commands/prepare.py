"""`mt prepare`: read, count and encode the corpora of a recipe."""

from __future__ import annotations

from mt.cli.options import ConfigFile, RecipeSets

ABOUT = "Read, count and encode the corpora of a recipe."


def command(config: ConfigFile, sets: RecipeSets = None) -> None:
    """Read the corpora, learn the vocabulary, encode everything into the cache.

    `mt train` does this by itself; run it alone to look at the counts first, or to do the work
    on another machine. What is already in the cache is not done again.

    \b
    Example:  mt prepare configs/demo.yaml --set vocabulary.size=4000
    """
    from mt.config import recipe
    from mt.data import prepare as preparing
    from mt.training import finetuning

    loaded, _ = recipe.load(config, sets or ())
    preparing.prepare(loaded, known=finetuning.inherited_vocabulary(loaded))
