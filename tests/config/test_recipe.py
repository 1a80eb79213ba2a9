"""Laws of the shipped configs: each loads as it is, and survives being written out."""

from pathlib import Path

import pytest

from mt.config import explain, recipe, validation, yaml_reader
from mt.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


def test_the_promised_configs_are_there():
    assert {path.stem for path in CONFIGS} >= {
        "demo", "demo_multilingual", "demo_pretrain", "demo_finetune", "low_resource",
        "multi30k_en_de", "multi30k_en_fr", "iwslt14_de_en", "small",
        "transformer_base_wmt14_en_de", "transformer_big_wmt14_en_de",
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
class TestEachConfig:
    def test_it_loads_as_it_is(self, path):
        recipe.load(path)

    def test_its_resolved_form_is_the_same_recipe(self, path):
        settled, document = recipe.load(path)
        again = yaml_reader.parse("\n".join(explain.to_yaml(settled, document)), "resolved.yaml")
        assert validation.validate(recipe.Recipe, again) == settled
        assert recipe.dump(validation.validate(recipe.Recipe, again)) == recipe.dump(settled)

    def test_it_says_first_what_it_trains(self, path):
        assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("name", "d_model", "n_heads", "d_ff", "dropout", "steps", "average"),
    [("base", 512, 8, 2048, 0.1, 100_000, 5), ("big", 1024, 16, 4096, 0.3, 300_000, 20)],
)
def test_the_paper_is_trained_as_it_says(name, d_model, n_heads, d_ff, dropout, steps, average):
    settled, _ = recipe.load(FOLDER / f"transformer_{name}_wmt14_en_de.yaml")
    given = recipe.dump(settled)
    model = given["model"]
    assert (model["d_model"], model["n_heads"], model["d_ff"]) == (d_model, n_heads, d_ff)
    assert (model["encoder_layers"], model["decoder_layers"]) == (6, 6)
    assert (model["dropout"], model["norm"], model["activation"]) == (dropout, "post", "relu")
    assert given["objective"]["label_smoothing"] == 0.1
    assert given["optimizer"]["betas"] == [0.9, 0.98]
    assert given["optimizer"]["epsilon"] == 1e-9
    assert given["schedule"] == {"kind": "inverse_sqrt", "warmup_steps": 4000}
    assert given["optimizer"]["learning_rate"] == pytest.approx((d_model * 4000) ** -0.5, rel=1e-6)
    assert (given["training"]["max_steps"], given["training"]["average"]) == (steps, average)
    assert given["training"]["keep_last"] >= average
    search = given["search"]
    assert (search["beams"], search["length_norm"], search["length_penalty"]) == (4, "gnmt", 0.6)
    assert (search["max_length_ratio"], search["max_length_extra"]) == (1.0, 50)


def test_what_is_monitored_is_the_loss_or_a_metric():
    def load(monitor):
        return recipe.load(FOLDER / "demo.yaml", [f"training.monitor={monitor}"])[0]

    assert [load(each).training.monitor for each in ("loss", "ter")] == ["loss", "ter"]
    with pytest.raises(ConfigError, match=r"training\.monitor: unknown metric 'rouge' .* or loss"):
        load("rouge")
