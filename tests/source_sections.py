"""Read a section of a recipe as a source."""

import json

import pytest
from pydantic import TypeAdapter

from mt.config import schema
from mt.config.plugins import plugin
from mt.errors import DataError, MtError

LANGUAGES = {"source": "en", "target": "de"}

SCHEMA = TypeAdapter(schema.Source)


def pairs(folder, **section):
    config = SCHEMA.validate_python({"languages": LANGUAGES, **section}, context={"folder": folder})
    return [(p.source, p.target) for p in plugin("sources", config.kind).read(config)]


def refused(folder, **section):
    """The message of the error, the folder's name left out."""
    with pytest.raises(MtError) as error:
        pairs(folder, **section)
    assert error.value.exit_code == DataError.exit_code
    return str(error.value).splitlines()[0].replace(f"{folder}/", "")


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
