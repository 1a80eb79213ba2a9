"""Judge the figures of `report`: what is wrong with the data, in plain words, and how bad it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mt.config.schema import DataLimits
from mt.errors import DataError

FEW_PAIRS = 10_000
"""Below this, a model learns little but what pre-training or more data give it."""


class Remark(NamedTuple):
    """A sentence about the data."""

    level: str
    """`good`, `warning` or `bad`."""
    text: str


def shares(report: dict[str, Any]) -> dict[str, float]:
    """Return the share of each kind of fault, by the names of the keys of `data.limits`."""
    train, sample = report["train"], report["sample"]
    pairs = max(1, sum(corpus["pairs"] for corpus in train))
    held_out = [c["leaked"]["normal"] / max(1, c["pairs"]) for c in report["held_out"].values()]
    languages, vocabulary = sample["languages"], sample["vocabulary"]
    scripts = [side["share"] for side in sample["scripts"] if side["share"] is not None]
    sides = vocabulary.get("sides", {}).values()
    return {
        "duplicates": sum(corpus["repeated"].get("pair", 0) for corpus in train) / pairs,
        "suspects": sum(corpus["suspects"] for corpus in train) / pairs,
        "leaked": max(held_out, default=0.0),
        "swapped": languages["swapped"] / max(1, languages["judged"]) if languages else 0.0,
        "other_script": 1 - min(scripts, default=1.0),
        "too_long": vocabulary.get("truncated", 0) / max(1, sample["pairs"]),
        "bytes": max((side["bytes"] for side in sides), default=0.0),
    }


EXPLAINED = {
    "duplicates": "of the training pairs repeat an earlier one: the rule `duplicates` drops them",
    "suspects": "of the training pairs are suspect; `mt data clean` drops and lists them",
    "leaked": "of the pairs of a validation or test set are in the training data, so its score is "
    "too good: data.drop_overlap and the rule `overlap` drop them from training",
    "swapped": "of the pairs have their sides swapped: exchange source and target of that corpus",
    "other_script": "of the letters of a side are of another script: use the rule `script`",
    "too_long": "of the pairs are longer than data.max_length and would be dropped",
    "bytes": "of the characters of a side are spelled in bytes: raise vocabulary.size",
}
"""What a share of each kind means, and what to do."""
WARNED = {
    "duplicates": 0.05, "suspects": 0.05, "leaked": 0.001, "swapped": 0.01, "other_script": 0.02,
    "too_long": 0.01, "bytes": 0.005,
}  # fmt: skip
"""Shares from which a remark is a warning."""
BAD = {
    "duplicates": 0.3, "suspects": 0.3, "leaked": 0.01, "swapped": 0.2, "other_script": 0.2,
    "too_long": 0.1, "bytes": 0.05,
}  # fmt: skip
"""And from which it is bad."""


def judge(report: dict[str, Any]) -> list[Remark]:
    """Return the remarks on a report, the worst first."""
    remarks = [*_size_remarks(report), *_corpus_remarks(report)]
    for kind, share in shares(report).items():
        if share >= WARNED[kind]:
            level = "bad" if share >= BAD[kind] else "warning"
            remarks.append(Remark(level, f"{share:.1%} {EXPLAINED[kind]}"))
    if not any(remark.level != "good" for remark in remarks):
        remarks.append(Remark("good", "Nothing was found that needs mending"))
    return sorted(remarks, key=lambda remark: ("bad", "warning", "good").index(remark.level))


def _size_remarks(report: dict[str, Any]) -> Iterator[Remark]:
    pairs = sum(corpus["pairs"] for corpus in report["train"])
    if pairs == 0:
        yield Remark("bad", "There are no training pairs")
    elif pairs < FEW_PAIRS:
        text = f"{pairs:,} training pairs are few: see docs/low_resource.md"
        yield Remark("warning", text)
    else:
        yield Remark("good", f"{pairs:,} training pairs")
    if report["sample"]["languages"] is None:
        text = "Languages were not identified: pip install 'mt[data]' to have them identified"
        yield Remark("warning", text)


def _corpus_remarks(report: dict[str, Any]) -> Iterator[Remark]:
    for number, corpus in enumerate(report["train"]):
        for finding in corpus["found"]:
            share = finding["pairs"] / max(1, corpus["pairs"])
            if share >= WARNED["suspects"]:
                text = f"train.{number}: {share:.1%} of its pairs fail the rule {finding['rule']}"
                yield Remark("warning", text)


def check_limits(report: dict[str, Any], limits: DataLimits) -> None:
    """Check the shares of a report against `data.limits`.

    Raises:
        DataError: some are above their limits; names each.
    """
    found = shares(report)
    problems: list[tuple[object, str]] = [
        (f"data.limits.{kind}", f"{found[kind]:.2%}, and at most {limit:.2%} is allowed")
        for kind, limit in limits.model_dump().items()
        if limit is not None and found[kind] > limit
    ]
    if problems:
        (where, what), *others = problems
        raise DataError("DATA-LIMITS", where, what, "see `mt data report -o FILE`", others)
