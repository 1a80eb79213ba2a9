"""`mt config`: show and explain a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli.options import RecipeSets
from mt.errors import ConfigError


def command(
    config: Annotated[
        Path | None, Argument(metavar="CONFIG", help="A YAML recipe.", show_default=False)
    ] = None,
    sets: RecipeSets = None,
    explain: Annotated[
        list[str] | None,
        Option(metavar="KEY", help="Print the type, default, value and meaning of one key."),
    ] = None,
    schema: Annotated[
        bool, Option("--schema", help="Print the JSON Schema of recipes, for editors.")
    ] = False,
) -> None:
    """Print a recipe with every default filled in, and the place where each value is set.

    The output is itself a recipe: it can be saved and trained.

    \b
    Example:  mt config configs/demo.yaml --set model.d_model=512
              mt config configs/demo.yaml --explain model.d_model
              mt config --schema > recipe.schema.json
    """
    from mt.config import explain as explaining
    from mt.config import recipe
    from mt.runtime.output import print_lines

    if schema:
        import json

        print_lines([json.dumps(recipe.Recipe.model_json_schema(), indent=2)])
        return
    if config is None:
        what, advice = "Missing argument 'CONFIG'.", "see mt config --help"
        raise ConfigError("USAGE", "mt config", what, advice)
    loaded, document = recipe.load(config, sets or ())
    if explain:
        print_lines(line for key in explain for line in explaining.explain(loaded, document, key))
    else:
        print_lines(explaining.to_yaml(loaded, document))
