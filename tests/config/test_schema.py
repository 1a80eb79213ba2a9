"""The keys of a recipe: bounds, defaults, and what contradicts itself."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mt.config import plugins, schema


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("TrainingConfig", {}, "one of max_steps, max_epochs, max_minutes must be given"),
        ("SideSamplingConfig", {"nbest": 8}, "nbest draws with alpha"),
        ("BatchingConfig", {"micro_tokens": 15}, "16 to 1000000000, got 15"),
        ("RuntimeConfig", {"threads": 0}, "auto or 1 to 1024, got 0"),
        ("RuntimeConfig", {"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ("VocabularyConfig", {"character_coverage": 1.5}, "above 0 and at most 1, got 1.5"),
        ("VocabularyConfig", {"sampling": {"source": {"dropout": 0.1}}}, "for model: bpe"),
        ("VocabularyConfig", {"size": 68}, "greater than 68"),
        ("EvaluationConfig", {"metrics": ["bleu", "bleu"]}, "several metrics are named bleu"),
        ("EvaluationConfig", {"metrics": [{"kind": "bleu", "name": "loss"}]}, "be confused"),
        ("EvaluationConfig", {"metrics": [{"kind": "bleu", "name": "ter"}]}, "be confused"),
        ("EvaluationConfig", {"metrics": [{"kind": "command", "run": ["x"]}]}, "metrics"),
        ("EvaluationConfig", {"metrics": ["my_lab.recall"]}, "a mapping with a kind, got 'my_lab"),
        ("EvaluationConfig", {"metrics": []}, "at least 1"),
    ],
)
def test_what_contradicts_itself_is_refused(section, values, message):
    with pytest.raises(ValidationError, match=message):
        getattr(schema, section).model_validate(values)


def test_sampling_names_the_vocabularies_that_it_needs():
    kinds = [
        schema.SamplingConfig.model_validate(values).kinds
        for values in ({}, {"source": {"dropout": 0.1}}, {"target": {"alpha": 0.2}})
    ]
    assert kinds == [set(), {"bpe"}, {"unigram"}]


def test_only_shapes_that_end_at_zero_need_the_last_step():
    kinds = ("inverse_sqrt", "linear", "cosine", "constant")
    falls = {kind: schema.ScheduleConfig(kind=kind).falls_to_zero for kind in kinds}
    assert falls == {"inverse_sqrt": False, "linear": True, "cosine": True, "constant": False}


def test_a_section_cannot_be_changed_and_has_no_unknown_key():
    section = schema.BatchingConfig()
    with pytest.raises(ValidationError, match="frozen"):
        section.tokens = 1
    with pytest.raises(ValidationError, match="Extra inputs"):
        schema.BatchingConfig.model_validate({"token": 1})


def test_metrics_are_written_as_they_were_given():
    given = ["bleu", {"kind": "bleu", "name": "low", "lowercase": True}]
    config = schema.EvaluationConfig(metrics=given)
    written = config.model_dump(mode="json")
    assert written["metrics"] == ["bleu", {**given[1], "tokenize": None}]
    assert schema.EvaluationConfig(**written) == config
    assert schema.EvaluationConfig().model_dump()["metrics"] == ["bleu", "chrf", "ter"]


def test_a_metric_of_a_module_is_written_as_a_section_that_names_it(tmp_path, monkeypatch):
    text = """
from mt.config.schema import MetricConfig
class Config(MetricConfig):
    kind: str = "my_metric_package.recall"
"""
    (tmp_path / "my_metric_package").mkdir()
    (tmp_path / "my_metric_package" / "recall.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    given = {"kind": "my_metric_package.recall"}
    plugins.trust_kinds(plugins.dotted_kinds(given))
    written = schema.EvaluationConfig(metrics=[given]).model_dump(mode="json")
    assert list(plugins.dotted_kinds(written)) == [given["kind"]]
    assert schema.EvaluationConfig(**written).metric("recall").kind == given["kind"]


def test_a_metric_is_found_by_its_name_or_its_kind():
    config = schema.EvaluationConfig(metrics=["chrf", {"kind": "bleu", "name": "low"}])
    assert config.metric("low") is config.metrics[1]
    assert config.metric("ter").label == "ter"
    for label in ("rouge", "command"):
        with pytest.raises(ValueError, match=r"there are: bleu, chrf, .*low"):
            config.metric(label)
