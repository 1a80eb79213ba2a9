"""Check pairs by a filter, as a recipe would configure it."""

from pydantic import TypeAdapter

from mt.config import schema
from mt.config.plugins import plugin
from mt.data.cleaning import Context

FILTER = TypeAdapter(schema.Filter)


def build(kind, source="en", target="de", held_out=(), notes=None, **settings):
    config = FILTER.validate_python({"kind": kind, **settings})
    note = (lambda what: None) if notes is None else notes.append
    return plugin("filters", kind).build(config, Context(source, target, note, held_out))


def check(kind, *pairs, **settings):
    """The value of each pair."""
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    return list(build(kind, **settings).check(sources, targets))


def found(kind, *pairs, **settings):
    """Whether each pair fails the rule."""
    return [value is not None for value in check(kind, *pairs, **settings)]
