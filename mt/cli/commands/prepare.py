"""`mt prepare`: read, count and encode the corpora of a recipe."""

from __future__ import annotations

from mt.cli.options import ConfigFile, RecipeSets, Trust


def command(config: ConfigFile, sets: RecipeSets = None, trust: Trust = False) -> None:
    """Read the corpora, learn the vocabulary, and encode everything into the cache.

    `mt train` does this by itself. Run it alone to check the counts first, or to do the work on
    another machine. Work that is in the cache is not repeated.

    \b
    Example:  mt prepare configs/demo.yaml --set vocabulary.size=4000
    """
    from mt.config import recipe
    from mt.data.prepare import prepare
    from mt.training.finetuning import inherited_vocabulary

    loaded, _ = recipe.load(config, sets or ())
    prepare(loaded, inherited=inherited_vocabulary(loaded))
