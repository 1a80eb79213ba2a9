"""Files made of a template: pages of HTML, with their figures as JSON beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mt.errors import ConfigError
from mt.runtime import files
from mt.runtime.output import refuse_existing


def render_template(template: Path, **values: Any) -> str:
    """Fill in a template of this package; in one of HTML all values are escaped.

    The filter `count` writes 1,000 as `1,000`, and `percent` writes 0.1234 as `12.34%`.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent), autoescape=template.suffix == ".html",
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda share: f"{share:.2%}"
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.get_template(template.name).render(**values)


def write_page(
    render: Callable[[], str], figures: dict[str, Any], path: Path, advice: str | None
) -> None:
    """Write what `render` returns to `path`, and its figures as JSON beside it.

    `advice` is that of the error where a file exists already; None replaces it.

    Raises:
        ConfigError: a file exists already, or `path` is the name of the JSON.
        MachineError: they cannot be written.
    """
    twin = path.with_suffix(".json")
    if twin == path:
        what, better = "is the name of the JSON beside the page", "name the page FILE.html"
        raise ConfigError("USAGE", path, what, better)
    for each in (path, twin) if advice is not None else ():
        refuse_existing(each, advice or "")
    files.write_json(twin, figures)
    files.write_file(path, render())
