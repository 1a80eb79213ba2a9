"""`mt config`."""

import json

import pytest

from mt.cli import main
from mt.config import explain, recipe, yaml_reader


class TestConfig:
    def test_each_value_says_where_it_comes_from(self, folder, capsys):
        assert main.run(["config", "recipe.yaml", "--set", "model.n_heads=2"]) == 0
        said = {
            line.partition(":")[0].strip(): line.partition(" # ")[2]
            for line in capsys.readouterr().out.splitlines()
        }
        assert said["d_model"] == "recipe.yaml:5"
        assert said["n_heads"] == "--set model.n_heads=2"
        assert said["d_ff"] == "default"

    def test_what_it_prints_is_the_same_recipe(self, folder, capsys):
        arguments = ["recipe.yaml", "--set", "optimizer.learning_rate=3e-4"]
        assert main.run(["config", *arguments]) == 0
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "copy.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
        first, _ = recipe.load(folder / "recipe.yaml", arguments[2:])
        assert recipe.load(elsewhere / "copy.yaml")[0] == first

    @pytest.mark.parametrize(
        "text",
        ["no", "1.5", "null", "a: b", "# x", "-", "'", '"', "\\", "äöü 中文", "a\u2028b", " "],
    )
    def test_every_text_is_written_so_that_it_reads_back(self, text):
        line = f"key: {explain._yaml_scalar(text)}"
        assert yaml_reader.parse(line).value == {"key": text}

    def test_explain_shows_type_default_value_and_meaning(self, folder, capsys):
        assert main.run(["config", "recipe.yaml", "--explain", "model.d_model"]) == 0
        assert capsys.readouterr().out == (
            "model.d_model:\n"
            "  Width D of the residual stream.\n"
            "  type: int\n"
            "  default: 512\n"
            "  value: 64 (recipe.yaml:5)\n"
        )

    def test_explain_knows_every_key(self, folder):
        settled, document = recipe.load(folder / "recipe.yaml")

        def keys(value, prefix):
            if isinstance(value, dict) and value:
                return [k for name, v in value.items() for k in keys(v, f"{prefix}.{name}")]
            if isinstance(value, list) and value and isinstance(value[0], dict):
                return [k for i, v in enumerate(value) for k in keys(v, f"{prefix}.{i}")]
            return [prefix.lstrip(".")]

        for key in keys(recipe.dump(settled), ""):
            # Metrics without settings are written as names, and are sections all the same.
            found = explain.explain(settled, document, key)[-1]
            assert found.startswith(("  value: ", f"  {key}.2"))

    def test_the_schema_needs_no_config_and_knows_every_section(self, capsys):
        assert main.run(["config", "--schema"]) == 0
        schema = json.loads(capsys.readouterr().out)
        assert set(schema["properties"]) == set(recipe.Recipe.model_fields)
        assert schema["additionalProperties"] is False
        assert "d_model" in json.dumps(schema)
