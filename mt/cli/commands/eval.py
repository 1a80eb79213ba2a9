"""`mt eval`: score a model, alone or against baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from mt.cli import options as cli

if TYPE_CHECKING:
    pass


def command(
    runs: cli.RunFolders,
    on: Annotated[
        list[str] | None, Option("--on", metavar="NAME", help="A test set of the recipe, not all.")
    ] = None,
    source: Annotated[
        Path | None, Option(metavar="FILE", help="Evaluate on this text instead.")
    ] = None,
    reference: Annotated[
        list[Path] | None, Option(metavar="FILE", help="Its translation; repeat for several.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="bleu, chrf, chrfpp, spbleu, ter, or a section as YAML; repeat for several.",
        ),
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        Option(metavar="RUN|FILE", help="Test against this model, or a file of translations."),
    ] = None,
    fail_below: Annotated[
        list[str] | None,
        Option(metavar="METRIC=VALUE", help="Exit with 3 when a score is worse than this."),
    ] = None,
    lowercase: Annotated[bool, Option("--lowercase", help="Compare lower-cased text.")] = False,
    tokenize: Annotated[
        str | None,
        Option(metavar="NAME", help="Tokenizer of BLEU: 13a, zh, char, none, ... or moses."),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of a table.")] = False,
    show: Annotated[
        int,
        Option(
            metavar="N", help="Also show N translations of each test set.", min=0, max=cli.MAX_COUNT
        ),
    ] = 0,
    processes: cli.Processes = 1,
    threads: cli.Threads = None,
    precision: cli.Precision = None,
    to: cli.To = None,
    sets: cli.EngineSets = None,
    checkpoint: cli.Checkpoint = None,
    device: cli.Device = None,
    trust: cli.Trust = False,
) -> None:
    """Score a model: BLEU, chrF2 and TER by sacreBLEU, or other metrics, each with its signature.

    BLEU is undefined where no translation has four tokens. --lowercase with --tokenize moses makes
    it the tokenised BLEU of many papers. A run that was validated on 20 pairs or more also has the
    chrF that it expects, and how well that fits. --baseline adds paired tests of
    significance, and intervals for short, long and rare sentences; see docs/evaluating.md.

    Translates every test set of the recipe, or those named by --on, into its own language, or the
    text of --source into that of --to. Translations are kept in RUN/hypotheses/, if
    it can be written; those of an ensemble in its first run.

    \b
    Example:  mt eval runs/demo --on test --json
              mt eval runs/demo --source test.en --reference test.de
              mt eval runs/new --baseline runs/old --fail-below bleu=30
              mt eval runs/demo --metric bleu --lowercase --tokenize moses
    """
    from mt.decoding.translate import open_engine
    from mt.evaluation import evaluate, limits, result_table
    from mt.runtime import text_files
    from mt.runtime.console import print_line
    from mt.runtime.output import print_lines

    options = replace(
        cli.engine_options(sets, checkpoint, device, precision, threads, processes, to=to),
        ensemble_paths=tuple(runs[1:]), low_latency=False,
    )  # fmt: skip
    engine = open_engine(runs[0], options)
    changes: dict[str, object] = {"lowercase": True} if lowercase else {}
    changes |= {"tokenize": tokenize} if tokenize else {}
    settings = evaluate.read_settings(runs[0], metric or (), changes)
    wanted = limits.parse_limits(fail_below or (), settings)
    source = None if source is None else text_files.copy_pipe(source)
    reference = [text_files.copy_pipe(path) for path in reference or ()]
    found = evaluate.evaluate(
        runs[0], engine, on or (), source, reference, options, settings, baseline or ()
    )
    scores = {name: each.scores for name, each in found.items()}
    expected = {name: each.expected for name, each in found.items() if each.expected is not None}
    for name, each in found.items():
        for label, value in each.scores.items():
            if "undefined" in value:
                what = f"{name}: {label} is undefined: {value['undefined']}"
                print_line(f"mt: warning[METRIC] {what}; chrF2 tells translations apart")
        for example in evaluate.spread(each.rows, show):
            for label, text in zip(("source", "reference", "translation"), example, strict=True):
                print_line(f"{label:11}  {text}")
            print_line("")
    if as_json:
        import json

        printed: dict[str, dict[str, Any]] = {name: {**each} for name, each in scores.items()}
        for name, figures in expected.items():
            printed[name]["expected_chrf"] = figures
        print_lines([json.dumps(printed, ensure_ascii=False)])
    else:
        print_lines(result_table.format_scores(scores, expected))
    limits.check_limits(scores, wanted)
