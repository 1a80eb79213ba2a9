"""Each fault is named by its rule, with its evidence, and a healthy training by none."""

import json

import pytest
import sound_recipe

from mt.config import recipe
from mt.errors import ModelError
from mt.training.diagnosis import HIDES, RULES, History, diagnose, read_history

FIGURES = {"valid_copied": 0.0, "valid_repeated": 0.0, "valid_length_ratio": 1.0}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "recipe.yaml").write_text(sound_recipe.RECIPE)
    return recipe.load(tmp_path / "recipe.yaml", ["optimizer.learning_rate=2e-3"])[0]


def healthy():
    """The records of a sound training: rates rise and fall, losses fall and flatten."""
    rates = [0.4, 0.8, 1.0, 0.9, 0.7, 0.5, 0.3, 0.1]
    losses = [7.0, 5.5, 4.5, 3.9, 3.5, 3.3, 3.2, 3.15]
    reports = [
        {"step": 50 * n, "loss": loss, "learning_rate": rate * 2e-3, "skipped": 0}
        for n, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1)
    ]
    valid = [4.5, 3.2, 2.6, 2.4, 2.36, 2.35]
    validations = [
        {
            "step": 70 * n, "epoch": 2 * n, "valid_loss": v, "train_loss": v - 0.1 * n,
            "valid_bleu": 5.0 * n, "valid_chrf": 20.0 + 5 * n, **FIGURES,
        }
        for n, v in enumerate(valid, start=1)
    ]  # fmt: skip
    return reports, validations


def kinds(settings, change=None, pairs=100_000, finished=True, **sets):
    reports, validations = healthy()
    if change is not None:
        change(reports, validations)
    if sets:
        optimizer = settings.optimizer.model_copy(update=sets)
        settings = settings.model_copy(update={"optimizer": optimizer})
    history = History(settings, reports, validations, pairs, finished)
    return [remark.kind for remark in diagnose(history)]


def replaced(side, key, values):
    def change(reports, validations):
        for record, value in zip((reports, validations)[side], values, strict=True):
            record[key] = value

    return change


def ends(key, value):
    def change(reports, validations):
        validations[-1][key] = value

    return change


def overfit(reports, validations):
    replaced(1, "valid_loss", [4.5, 3.2, 2.6, 2.8, 3.0, 3.3])(reports, validations)
    replaced(1, "train_loss", [4.4, 3.0, 2.3, 1.5, 1.0, 0.6])(reports, validations)


def misaligned(reports, validations):
    replaced(1, "valid_loss", [5.0, 4.6, 4.5, 4.5, 4.5, 4.5])(reports, validations)
    replaced(1, "train_loss", [5.0, 4.6, 4.4, 4.3, 4.3, 4.3])(reports, validations)
    replaced(1, "valid_bleu", [None, 0.1, 0.2, 0.2, 0.2, 0.2])(reports, validations)
    replaced(1, "valid_chrf", [5, 10, 12, 12, 12, 12])(reports, validations)


def slow(reports, validations):
    replaced(0, "loss", [9.0, 8.9, 8.7, 8.5, 8.3, 8.1, 7.9, 7.8])(reports, validations)
    for key in ("valid_loss", "train_loss"):
        replaced(1, key, [9.0, 8.7, 8.4, 8.1, 7.8, 7.5])(reports, validations)


def falling(reports, validations):
    for key in ("valid_loss", "train_loss"):
        replaced(1, key, [5, 4.5, 4, 3.6, 3.3, 3.0])(reports, validations)


def test_a_healthy_training_gets_no_remark(settings):
    assert kinds(settings) == []
    assert kinds(settings, finished=False) == []
    assert diagnose(History(settings, [], [])) == []


@pytest.mark.parametrize(
    ("expected", "change", "more"),
    [
        ("diverging", replaced(0, "loss", [7, 5, 4, 4, 5, 7, 8, 9]), {}),
        ("diverging", replaced(0, "loss", [7, 5, 4, 4, None, None, None, None]), {}),
        ("skipped updates", replaced(0, "skipped", [0, 5, 9, 12, 14, 15, 18, 20]), {}),
        ("learning rate too high", replaced(0, "loss", [7, 5, 6.2, 6, 5.9, 5.8, 5.6, 5.5]), {}),
        ("learning rate too low", slow, {"learning_rate": 1e-6}),
        ("not translating", misaligned, {}),
        ("copies the source", ends("valid_copied", 0.4), {}),
        ("output too short", ends("valid_length_ratio", 0.5), {}),
        ("repetition", ends("valid_repeated", 0.3), {}),
        ("repetition", ends("valid_length_ratio", 2.0), {}),
        ("overfitting", overfit, {}),
        ("data too small", overfit, {"pairs": 3000}),
        ("validation unlike training", replaced(1, "train_loss", [3, 2, 1.9, 1.8, 1.8, 1.8]), {}),
        ("under-trained", falling, {}),
    ],
)
def test_each_fault_is_named_alone(settings, expected, change, more):
    assert kinds(settings, change, **more) == [expected]


def test_an_unfinished_training_is_not_under_trained(settings):
    assert kinds(settings, falling, finished=False) == []


def test_a_remark_has_evidence_and_advice(settings):
    reports, validations = healthy()
    overfit(reports, validations)
    (remark,) = diagnose(History(settings, reports, validations, 100_000))
    assert "2.60 at step 210 to 3.30" in str(remark)
    assert "model.dropout" in str(remark)


def test_what_hides_another_fault_is_a_kind_of_its_own(settings):
    hidden = set().union(*HIDES.values())
    assert "diverging" not in hidden
    assert all(kind not in HIDES[kind] for kind in HIDES)
    assert len(RULES) >= 10


def test_records_are_read_from_the_file_of_the_run(settings, tmp_path):
    reports, validations = healthy()
    lines = "".join(f"{json.dumps(each)}\n" for each in [*reports, *validations])
    (tmp_path / "metrics.jsonl").write_text(lines)
    history = read_history(tmp_path, settings, None, True)
    assert (history.reports, history.validations) == (reports, validations)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": \n')
    with pytest.raises(ModelError, match=f"metrics.jsonl:{len(reports) + len(validations) + 1}"):
        read_history(tmp_path, settings, None, True)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(ModelError, match="METRICS-NONE"):
        read_history(tmp_path, settings, None, True)
