"""Rule: pairs that two models find unlikely."""

import pytest
from filter_checks import build

from mt.errors import DataError


def scores(folder, forward, backward):
    for name, values in (("forward", forward), ("backward", backward)):
        (folder / name).write_text("".join(f"{value}\n" for value in values))
    return {"forward": str(folder / "forward"), "backward": str(folder / "backward")}


def test_the_best_share_is_kept_by_the_formula_of_the_paper(tmp_path):
    forward, backward = [-1.0, -2.0, -1.0, -5.0, -1.5], [-1.0, -2.0, -4.0, -5.0, -1.5]
    rule = build("dual_cross_entropy", keep=0.6, **scores(tmp_path, forward, backward))
    values = [*rule.check(["a"] * 2, ["b"] * 2), *rule.check(["a"] * 3, ["b"] * 3)]
    # |H - H'| + (H + H') / 2: 1, 2, 3 + 2.5, 5 and 1.5
    assert values == [None, None, 5.5, 5.0, None]
    rule.finish()


def test_all_are_kept_at_1(tmp_path):
    rule = build("dual_cross_entropy", keep=1.0, **scores(tmp_path, [-1, -9], [-3, -9]))
    assert rule.check(["a"] * 2, ["b"] * 2) == [None, None]


@pytest.mark.parametrize(
    ("forward", "backward", "pairs", "message"),
    [
        ([-1, -2], [-1], 1, "2 scores against 1"),
        ([-1, -2], [-1, -2], 3, "more pairs than its 2 lines"),
        ([-1, -2], [-1, -2], 1, "2 lines for 1 pairs"),
        ([-1, "x"], [-1, -2], 2, "forward:2: the line is no number"),
        ([-1, -2], ["nan", -2], 2, "backward:1: the line is no number"),
    ],
)
def test_scores_of_other_pairs_are_refused(tmp_path, forward, backward, pairs, message):
    settings = scores(tmp_path, forward, backward)

    def use():
        rule = build("dual_cross_entropy", **settings)
        rule.check(["a"] * pairs, ["b"] * pairs)
        rule.finish()

    with pytest.raises(DataError, match=message):
        use()
