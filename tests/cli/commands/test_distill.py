"""`mt distill` keeps the original pairs on demand and refuses contradictions."""

from __future__ import annotations

import pytest
from distilled_runs import distil

from mt.cli import main


def test_the_original_pairs_are_kept_on_demand(distillation):
    assert distil("--keep-original", "--no-train") == 0
    settled = (distillation / "runs/student/distilled/student.yaml").read_text(encoding="utf-8")
    assert settled.count("kind: text") == 2 + 2
    assert not (distillation / "runs/student/checkpoints").exists()
    assert main.run(["train", "runs/student/distilled/student.yaml", "--run", "runs/student"]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--level", "sequence", "--set", "objective.kind=distillation"], "objective.kind"),
        (["--level", "word", "--keep-original"], "--keep-original"),
        (["--level", "word", "--set", "objective.weigth=1"], "objective.weigth"),
        (["--set", "languages.target=fr"], "the teacher translates to de, the corpus to fr"),
    ],
)
def test_what_makes_no_sense_is_refused(distillation, capsys, more, told):
    assert distil(*more) == 2
    assert told in capsys.readouterr().err
