"""The verdict names what is wrong, the worst first, and limits fail."""

import copy

import pytest

from mt.config.schema import DataLimits
from mt.data.verdict import BAD, EXPLAINED, WARNED, check_limits, judge, shares
from mt.errors import DataError

SOUND = {
    "train": [{"pairs": 20_000, "suspects": 0, "repeated": {}, "found": []}],
    "held_out": {"valid": {"pairs": 1000, "leaked": {"normal": 0}}},
    "sample": {
        "pairs": 1000, "languages": {"swapped": 0, "judged": 900},
        "scripts": [{"share": 1.0}, {"share": None}],
        "vocabulary": {"truncated": 0, "sides": {"source": {"bytes": 0.0}}},
    },
}  # fmt: skip
FAULTS = {
    "duplicates": lambda r: r["train"][0]["repeated"].update(pair=10_000),
    "suspects": lambda r: r["train"][0].update(suspects=10_000),
    "leaked": lambda r: r["held_out"]["valid"]["leaked"].update(normal=500),
    "swapped": lambda r: r["sample"]["languages"].update(swapped=450),
    "other_script": lambda r: r["sample"]["scripts"][1].update(share=0.5),
    "too_long": lambda r: r["sample"]["vocabulary"].update(truncated=500),
    "bytes": lambda r: r["sample"]["vocabulary"]["sides"]["source"].update(bytes=0.5),
}


def test_sound_data_need_nothing():
    assert {remark.level for remark in judge(SOUND)} == {"good"}
    assert set(shares(SOUND).values()) == {0.0}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_has_its_share_remark_and_limit(kind):
    report = copy.deepcopy(SOUND)
    FAULTS[kind](report)
    assert shares(report) == {name: 0.5 * (name == kind) for name in FAULTS}
    assert judge(report)[0].level == "bad"
    assert judge(report)[0].text == f"50.0% {EXPLAINED[kind]}"
    check_limits(report, DataLimits(**{kind: 0.5}))
    check_limits(report, DataLimits())
    with pytest.raises(DataError, match=rf"data.limits.{kind}: 50.00%") as caught:
        check_limits(report, DataLimits(**{kind: 0.49}))
    assert caught.value.exit_code == 3


def test_every_fault_is_explained_and_has_its_levels_and_its_key():
    assert set(FAULTS) == set(EXPLAINED) == set(WARNED) == set(BAD) == set(DataLimits.model_fields)
    assert all(WARNED[kind] < BAD[kind] for kind in BAD)


def test_few_pairs_and_a_failing_rule_are_warned_of():
    report = copy.deepcopy(SOUND)
    report["train"] = [
        {"pairs": 900, "suspects": 0, "repeated": {}, "found": [{"rule": "ratio", "pairs": 90}]}
    ]
    report["sample"]["languages"] = None
    texts = [remark.text for remark in judge(report) if remark.level == "warning"]
    assert [any(word in text for text in texts) for word in ("few", "ratio", "mt[data]")] == [1] * 3
    report["train"][0]["pairs"] = 0
    assert judge(report)[0].text == "There are no training pairs"
