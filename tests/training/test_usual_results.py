"""A run is compared with measured ones of about as many pairs, and their figures are documented."""

import re
from pathlib import Path

import pytest
import sound_recipe

from mt.config import recipe
from mt.training.usual_results import USUAL_RESULTS, compare_with_usual, find_usual

DOCS = Path(__file__).parents[2] / "docs"
VALIDATIONS = [
    {"step": 1, "valid_bleu": 31.04, "valid_chrf": 55.0, "valid_perplexity": 8.9},
    {"step": 2, "valid_bleu": 30.0, "valid_chrf": 56.0, "valid_perplexity": 8.8},
    {"step": 3, "valid_bleu": None},
]


@pytest.fixture
def settings(tmp_path):
    def load(source="kind: text, source: train.en, target: train.de"):
        text = sound_recipe.RECIPE.replace("kind: text, source: train.en, target: train.de", source)
        (tmp_path / "recipe.yaml").write_text(text)
        return recipe.load(tmp_path / "recipe.yaml")[0]

    return load


def test_the_best_validation_is_put_beside_similar_runs(settings):
    assert compare_with_usual(settings(), 29_000, VALIDATIONS) == (
        "validation BLEU 31.0, chrF 55.0, perplexity 8.90; runs of mt on 29,000 pairs of image "
        "captions, en-de: validation BLEU 36.8 to 41, test BLEU 36.4 to 40.1, test chrF 60.7 to "
        "63.6"
    )


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        (100, None), (700, 2_000), (3_000, 2_000), (4_000, 5_000), (12_000, 5_000),
        (87_000, 29_000), (88_000, None), (10**8, None),
    ],
)  # fmt: skip
def test_the_nearest_number_of_pairs_counts(settings, pairs, found):
    usual = find_usual(settings(), pairs)
    assert (usual and usual.pairs) == found


def test_like_is_compared_with_like(settings):
    text = settings()
    assert find_usual(text, 29_000).direction == "en-de"
    assert not find_usual(text, 5_000).pretrained
    begun = text.training.model_copy(update={"initialise_from": "x"})
    assert find_usual(text.model_copy(update={"training": begun}), 5_000).pretrained
    assert find_usual(text, 120_000) is None
    assert find_usual(settings("kind: demo, size: 120000"), 120_000).invented


def test_what_is_unknown_is_not_compared(settings):
    assert compare_with_usual(settings(), None, VALIDATIONS) is None
    assert compare_with_usual(settings(), 29_000, []) is None
    assert compare_with_usual(settings(), 29_000, [{"step": 1, "valid_loss": 2.0}]) is None


@pytest.mark.parametrize("usual", USUAL_RESULTS, ids=lambda each: f"{each.text} {each.pairs}")
def test_its_figures_are_those_of_the_documentation(usual):
    table = (DOCS / "reports.md").read_text(encoding="utf-8")
    figures = str(usual).rpartition(": ")[2]
    (row,) = [row for row in table.splitlines() if row.startswith("|") and f"| {figures} |" in row]
    assert f"| {usual.pairs:,} | {usual.text}, {usual.direction}" in row
    named = re.findall(r"\((\w+\.md)", row)
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in named]
    written = [float(number) for page in pages for number in re.findall(r"\d+\.\d+", page)]
    for low, high in usual.figures.values():
        for value in (low, high):
            digits = 2 if value < 10 else 1
            assert any(abs(each - value) <= 0.5001 * 10**-digits for each in written)
