"""Every plug-in has the functions of its section; interfaces cost nothing to import."""

import inspect

import pytest

from mt.config.plugins import FOLDERS, plugin, plugins
from mt.config.section import Variant

FUNCTIONS = {
    "sources": {"read": ["config"]},
    "filters": {"build": ["config", "context"]},
    "models": {"build": ["config", "vocabulary"]},
    "objectives": {"build": ["config", "model", "vocabulary", "teacher"]},
    "optimizers": {"build": ["config", "named_parameters"]},
    "search": {"build": ["config"]},
    "engines": {"accepts": ["path"], "open": ["path", "options"]},
    "exporters": {
        "check": ["opened", "config"],
        "export": ["model", "opened", "path", "config"],
    },
    "metrics": {"build": ["config", "target_language"]},
}
"""The functions of each section's plug-ins and their parameters; see docs/extending.md."""

PLUGINS = [(section, kind) for section in FOLDERS for kind in plugins(section)]

WITH_CONFIG = [(section, kind) for section, kind in PLUGINS if section != "engines"]


@pytest.mark.parametrize(("section", "kind"), PLUGINS)
def test_every_plugin_has_the_functions_of_its_section(section, kind):
    module = plugin(section, kind)
    for name, parameters in FUNCTIONS[section].items():
        assert list(inspect.signature(getattr(module, name)).parameters) == parameters


@pytest.mark.parametrize(("section", "kind"), WITH_CONFIG)
def test_every_config_is_frozen_and_documents_each_key(section, kind):
    schema = plugin(section, kind).Config
    assert issubclass(schema, Variant)
    assert schema.model_config["frozen"]
    fields = schema.model_fields
    assert fields["kind"].default == kind
    assert [name for name, info in fields.items() if not info.description and name != "kind"] == []
