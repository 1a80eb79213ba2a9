"""The commands: what a user types, told to the functions that do it; no logic of its own.

Everything heavy is imported inside the command that needs it, so that help is instant.
Standard output is data; everything else, errors too, goes to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from mt import memory
from mt.errors import ConfigError, Elsewhere, MachineError, MtError, Stopped, printable

if TYPE_CHECKING:
    from mt.contracts import EngineOptions

ABOUT = """Train a machine-translation Transformer from parallel text, and translate with it.

\b
  mt train configs/demo.yaml                  prepare, train, resume when run again
  echo "Hello." | mt translate runs/demo      lines in, lines out
  mt eval runs/demo                           BLEU, chrF and TER of every test set
  mt score runs/demo --source a --target b    how probable given translations are

Standard output is data, standard error is everything else.

\b
Exit codes:
  0 done                        4 model or checkpoint
  1 a bug of mt                 5 the machine: disk, lock, device, memory
  2 command line or config      6 training diverged
  3 data                        7 download or integrity
  8 diff-trace found two runs that differ
  130, 143 stopped by a signal, with a checkpoint saved

MT_CACHE names the folder of encoded corpora; MT_DEBUG=1 shows the trace of a bug.
"""

DIFFERENT = 8
"""Exit code of `mt diff-trace` when it finds a difference: no failure, so no MtError has it."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=ABOUT,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML recipe, such as configs/demo.yaml.")
]
RunFolders = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        help="A run directory, or one checkpoint folder in it; several are an ensemble.",
    ),
]
RecipeSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, say model.dropout=0.3."),
]
EngineSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a search.* or runtime.* value of the run."
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="best, last, average or step-N; best when left out."),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N; auto if left out.")
]
RuntimeSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a runtime.* value of the run."),
]
Processes = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="Share the work among N processes, a model in each."),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="CPU threads of a process; one a core if left out."),
]
Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16; auto if left out.")
]


class BadBytes(Enum):
    """What is done at a line that is not UTF-8."""

    stop = "stop"
    replace = "replace"


class ScoreFormat(Enum):
    """How scores are written."""

    text = "text"
    json = "json"


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions of mt, torch, Python; the device.")
    ] = False,
) -> None:
    if version:
        from mt import distributed

        _print([f"mt {_version()}, {distributed.describe()}"])
    elif context.invoked_subcommand is None:
        _print([context.get_help()])


@app.command(short_help="Read, count and encode the corpora of a recipe.")
def prepare(config: ConfigFile, sets: RecipeSets = None) -> None:
    """Read the corpora, learn the vocabulary, encode everything into the cache.

    `mt train` does this by itself; run it alone to look at the counts first, or to do the work
    on another machine. What is already in the cache is not done again.

    \b
    Example:  mt prepare configs/demo.yaml --set vocabulary.size=4000
    """
    from mt import prepare as preparing
    from mt import recipe, report

    preparing.prepare(recipe.load(config, sets or ())[0], report.say)


@app.command(short_help="Train a model, or resume.")
def train(
    config: ConfigFile,
    sets: RecipeSets = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run directory; runs/<config name> if left out."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; an older run is moved aside, not deleted.")
    ] = False,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Write trace.jsonl for mt diff-trace; waits for the device at every update.",
        ),
    ] = False,
) -> None:
    """Train a model; the same command again resumes where it stopped.

    Prepares the data when needed, validates as it goes, keeps the best and the last checkpoints,
    and writes metrics.jsonl and TensorBoard files into the run directory. Ctrl-C or SIGTERM
    saves a checkpoint and leaves with 130 or 143.

    \b
    Example:  mt train configs/demo.yaml --set training.max_minutes=10 --run runs/short
              torchrun --nproc-per-node 2 -m mt train configs/demo.yaml
    """
    from mt import distributed, recipe

    with distributed.processes() as world:
        settled, _ = recipe.load(config, sets or ())
        from mt import train as training

        training.train(settled, run or Path("runs") / config.stem, fresh, trace, world)


@app.command(short_help="Translate lines of text.")
def translate(
    runs: RunFolders,
    source: Annotated[
        Path | None,
        typer.Option("-i", "--input", metavar="FILE", help="Text to read; standard input if none."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where to write; standard output."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the -o file if it is there already.")
    ] = False,
    n_best: Annotated[
        int, typer.Option(metavar="N", min=1, help="Write the N best translations of each line.")
    ] = 1,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="text, moses (line ||| translation ||| features ||| score) or json (an object a "
            "line, everything in it); moses for n-best lists, else text.",
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="In text, the score and a tab before each translation."),
    ] = False,
    alignments: Annotated[
        bool,
        typer.Option(
            "--alignments",
            help="In text, a tab and word alignments i-j (source-target, from 0) after each "
            "translation; in moses a last field; in json the matrix, too.",
        ),
    ] = False,
    prefix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What each translation must begin with, line by line."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of searches that sample.")] = 1,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Leave with 3 at a line too long for the model; else split."),
    ] = False,
    on_bad_utf8: Annotated[
        BadBytes,
        typer.Option(
            help="At a line that is not UTF-8: stop with 3, or read U+FFFD for the bytes."
        ),
    ] = BadBytes.stop,
    line_buffered: Annotated[
        bool,
        typer.Option("--line-buffered", help="Answer each line before the next is read; slower."),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Share the work among N processes, a model in each; by default as many as CPU "
            "cores (at most 8) for a file of some size, else one.",
        ),
    ] = None,
    threads: Threads = None,
    precision: Precision = None,
    sets: EngineSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Translate text: one line in, one line out, in order; blank lines stay blank.

    The input is UTF-8, plain or compressed, raw: no tokenisation before or after. A file named
    by -o appears when it is complete. Of several models the log-probabilities are averaged;
    they must share one vocabulary. At a terminal, without -i, it is a conversation: a prompt,
    the translation coloured by confidence, and a map of the attention; Ctrl-D ends it.

    \b
    Example:  mt translate runs/demo -i test.en -o test.de --set search.beams=8
              mt translate runs/one runs/two --n-best 5 --format json < test.en
    """
    from mt import files, formats
    from mt import translate as translating

    _refuse(
        (force and target is None, "--force", "there is no -o file to replace"),
        (line_buffered and target is not None, "--line-buffered", "an -o file appears at the end"),
        (
            (processes or 1) > 1 and line_buffered,
            "--line-buffered",
            "one line is no work for several",
        ),
    )
    if target is not None and not force:
        files.refuse_existing(target, "choose another name, or replace it with --force")
    rendering = formats.rendering(form, n_best, scores, alignments)
    options = replace(
        _options(sets, checkpoint, device, precision, threads, processes or 1),
        others=tuple(runs[1:]), n_best=n_best, alignments=alignments, seed=seed, strict=strict,
        line_buffered=line_buffered, prefixes=files.lines(prefix) if prefix else None,
        token_scores=n_best > 1 or form in ("moses", "json"),
    )  # fmt: skip
    plain = source or target or form or scores or alignments or prefix or line_buffered
    if not plain and _at_terminal():
        from mt import interactive

        options = replace(options, token_scores=True)
        interactive.converse(translating.open_engine(runs[0], options), options)
        return
    with _input(source) as stream:  # a file that is missing is told before a model is opened
        alone = line_buffered or options.device or threads or processes
        if not alone:
            options = replace(options, processes=translating.fair_processes(stream))
        engine = translating.open_engine(runs[0], options)
        with files.output(target) as out:
            name, replaced = str(source or "standard input"), on_bad_utf8 is BadBytes.replace
            translating.translate_stream(engine, stream, out, options, name, rendering, replaced)


@app.command(short_help="Score given translations with a model.")
def score(
    runs: RunFolders,
    source: Annotated[Path, typer.Option(metavar="FILE", help="The source text.")],
    target: Annotated[Path, typer.Option(metavar="FILE", help="Its translation, line by line.")],
    form: Annotated[
        ScoreFormat,
        typer.Option("--format", help="text: a number a line; json: that of each token, too."),
    ] = ScoreFormat.text,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Divide by the number of tokens, end included.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Leave with 3 at a line too long for the model; else cut."),
    ] = False,
    processes: Processes = 1,
    threads: Threads = None,
    precision: Precision = None,
    sets: RuntimeSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Score given translations: the log-probability (natural logarithm) of each, one a line.

    The model is made to say each target line, its end included (forced decoding). Both files
    are UTF-8, plain or compressed, of equally many lines. The number of tokens and the
    perplexity of all go to standard error. Several runs are scored as one, as an ensemble.

    \b
    Example:  mt score runs/demo --source test.en --target test.de
              mt score runs/demo --source test.en --target test.de --format json
    """
    from mt import files
    from mt import translate as translating

    options = _options(sets, checkpoint, device, precision, threads, processes, ("runtime",))
    translating.refuse_unequal(source, target)  # told before a model is opened
    options = replace(options, strict=strict, others=tuple(runs[1:]))
    engine = translating.open_engine(runs[0], options)
    with files.output(None) as out:
        as_json = form is ScoreFormat.json
        translating.score_files(engine, source, target, out, as_json, normalize)


@app.command("eval", short_help="Score a model: BLEU, chrF2, TER.")
def evaluate(
    runs: RunFolders,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="NAME", help="A test set of the recipe; all if left out."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Evaluate on this text instead.")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Its translation; give several for several references."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
    show: Annotated[
        int, typer.Option(metavar="N", help="Show N translations of each test set, too.", min=0)
    ] = 0,
    processes: Processes = 1,
    threads: Threads = None,
    precision: Precision = None,
    sets: EngineSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Score a model with sacreBLEU: BLEU, chrF2 and TER, each with its signature.

    Translates every test set of the recipe, or those named by --on, or the text of --source,
    and keeps the translations in RUN/hypotheses/, those of an ensemble in its first run's.

    \b
    Example:  mt eval runs/demo --on test --json
              mt eval runs/demo --source test.en --reference test.de
    """
    from mt import evaluate as evaluating
    from mt import report, translate

    options = _options(sets, checkpoint, device, precision, threads, processes)
    engine = translate.open_engine(runs[0], replace(options, others=tuple(runs[1:])))
    scores = evaluating.evaluate(runs[0], engine, on or (), source, reference or ())
    for name in scores:
        for example in evaluating.examples(runs[0], name, show):
            for label, text in zip(("source", "reference", "translation"), example, strict=True):
                report.say(f"{label:11}  {text}")
            report.say("")
    if as_json:
        import json

        _print([json.dumps(scores, ensure_ascii=False)])
    else:
        _print(_score_table(scores))


@app.command(short_help="Write a model for another program.")
def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, a checkpoint in it, a bundle.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET", help="ctranslate2, huggingface or bundle.")
    ],
    quantization: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Of ctranslate2's weights: int8, int8_float32, float16, bfloat16, ...; float32.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="What to write; beside the run."),
    ] = None,
    checkpoint: Checkpoint = None,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Lines to compare with; the recipe's first test set."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier export of that name.")
    ] = False,
) -> None:
    """Write a model for another program, and compare it with the model it came from.

    \b
      ctranslate2   a folder for the fastest engine on processors; mt translates with it, too
      huggingface   a folder that AutoTokenizer and AutoModelForSeq2SeqLM load
      bundle        one file, X.mt: weights, vocabulary, recipe, model card, checksums

    Up to 200 lines are scored and translated with both. In float32 forced scores may differ by
    1e-4 and greedy translations not at all, but for ties; in fewer bits both have a bound. What
    differs by more is an error (exit code 4) and leaves nothing behind. Size, speed and BLEU of
    both are printed. What a target cannot express is refused before any work.

    \b
    Example:  mt export runs/demo --to ctranslate2 --quantization int8
              mt translate runs/demo-ctranslate2-int8 < test.en > test.de
    """
    from mt import export as exporting

    settings = {} if quantization is None else {"quantization": quantization}
    done = exporting.export(run, to, out, settings, checkpoint, sample, force)
    _print(exporting.table(done))


@app.command(short_help="Average the weights of checkpoints.")
def average(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="[step-A step-B ...]", help="Which; the last ones if left out."),
    ] = None,
    last: Annotated[
        int, typer.Option(metavar="N", min=2, help="Of the last N checkpoints, or all there are.")
    ] = 5,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an average that is there already.")
    ] = False,
) -> None:
    """Average the weights of checkpoints of one run, into its checkpoints/average.

    The average often translates a little better than each of them; `--checkpoint average` of
    the other commands takes it. A run in training is refused; training.average does the same
    at the end of a training, and validates the result.

    \b
    Example:  mt average runs/demo --last 4
              mt average runs/demo step-400 step-600
              mt eval runs/demo --checkpoint average
    """
    from mt import checkpoint, report

    made = checkpoint.average(run, checkpoints or (), last, force)
    report.say(f"mt: averaged {', '.join(made)}; --checkpoint {checkpoint.AVERAGE} takes it")


@app.command(short_help="Learn which target pieces a source can become.")
def shortlist(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    pieces: Annotated[
        int, typer.Option(metavar="K", min=1, help="Target pieces kept for each source piece.")
    ] = 100,
    frequent: Annotated[
        int,
        typer.Option(metavar="F", min=0, help="Frequent target pieces kept for every source."),
    ] = 1000,
    pairs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most training pairs to learn from.")
    ] = 200_000,
) -> None:
    """Learn a lexical shortlist: which target pieces each source piece can become.

    With it --set search.shortlist=true computes the probabilities of these pieces only, which
    is faster the larger the vocabulary is. It is learned from the run's training data, which must
    still be where they were, by IBM Model 1, and written into the run; an earlier one is replaced.

    \b
    Example:  mt shortlist runs/demo
              mt translate runs/demo --set search.shortlist=true < test.en
    """
    from mt import prepare as preparing
    from mt import report

    preparing.learn_shortlist(run, pieces, frequent, pairs, report.say)
    report.say("mt: --set search.shortlist=true uses it")


@app.command("config", short_help="Show and explain a recipe.")
def show_config(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A YAML recipe.", show_default=False)
    ] = None,
    sets: RecipeSets = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Tell about one key: its type, default, value, meaning."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")
    ] = False,
) -> None:
    """Print a recipe with every default filled in, and where each value was said.

    The output is itself a recipe: it can be saved and trained.

    \b
    Example:  mt config configs/demo.yaml --set model.d_model=512
              mt config configs/demo.yaml --explain model.d_model
              mt config --schema > recipe.schema.json
    """
    from mt import recipe

    if schema:
        import json

        _print([json.dumps(recipe.Recipe.model_json_schema(), indent=2)])
        return
    if config is None:
        what, advice = "Missing argument 'CONFIG'.", "see mt config --help"
        raise ConfigError("USAGE", "mt config", what, advice)
    settled, document = recipe.load(config, sets or ())
    if explain:
        _print(line for key in explain for line in recipe.explained(settled, document, key))
    else:
        _print(recipe.rendered(settled, document))


@app.command(short_help="Name the first update in which two traced runs differ.")
def diff_trace(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run directory, or a trace.jsonl.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
) -> None:
    """Compare two runs that were trained with --trace, update by update, to the last bit.

    Names the first update that differs and in what: its place, its data, its loss, its gradient
    norm, its learning rate, or (every 50 updates and at the end) the weights after it. Leaves
    with 0 when the runs are equal, with 8 when they differ.

    \b
    Example:  mt diff-trace runs/demo runs/again
    """
    from mt import trace

    traces = trace.read(one), trace.read(other)
    difference = trace.first_difference(*traces)
    if difference is None:
        _print([trace.compared(*traces)])
        return
    values = zip((one, other), difference.values, strict=True)
    told = [f"  {value}  {printable(path)}" for path, value in values]
    _print([f"step {difference.step}: {difference.what} differs", *told])
    raise typer.Exit(DIFFERENT)


@app.command(short_help="List or clear the encoded corpora.")
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete them all; the next run encodes again.")
    ] = False,
) -> None:
    """List the encoded corpora in the cache with their sizes, or delete them.

    The cache is $MT_CACHE, else mt/ in the platform's cache folder. It holds nothing that cannot
    be made again from the recipe and the data.

    \b
    Example:  mt cache --clear
    """
    from mt import files

    folder = files.cache_folder() / "corpora"
    entries = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    if clear:
        for entry in entries:
            files.discard(entry)
        sys.stderr.write(f"deleted {len(entries)} corpora in {folder}\n")
        return
    sizes = [sum(f.stat().st_size for f in e.rglob("*") if f.is_file()) for e in entries]
    _print(f"{size / 1e6:10.1f} MB  {entry}" for entry, size in zip(entries, sizes, strict=True))


# ------------------------------------------------------------------------------- helpers


def _print(lines: Any) -> None:
    from mt import files

    with files.output(None) as out:
        for line in lines:
            out.write(f"{line}\n")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("mt")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _input(path: Path | None) -> contextlib.AbstractContextManager[BinaryIO]:
    """The bytes to read: of a file, else of standard input."""
    from mt import files

    if path is not None:
        return files.open_bytes(path)
    if sys.stdin is None:
        advice = "give it something to read, or a file with -i"
        raise ConfigError("USAGE", "standard input", "it is closed", advice)
    return contextlib.nullcontext(sys.stdin.buffer)


def _at_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _refuse(*wrong: tuple[bool, str, str]) -> None:
    """Refuse what makes no sense together: (whether it is so, option, why)."""
    for is_so, option, why in wrong:
        if is_so:
            raise ConfigError("USAGE", option, why, "leave it out")


def _options(
    sets: list[str] | None, checkpoint: str | None, device: str | None,
    precision: str | None = None, threads: int | None = None, processes: int = 1,
    sections: Sequence[str] = ("search", "runtime"),
) -> EngineOptions:  # fmt: skip
    """What an engine is asked for, from the options that stand for `runtime.*` and from --set."""
    import json

    from pydantic import Field

    from mt import config, distributed
    from mt.contracts import EngineOptions

    class Settings(config.Section):
        search: dict[str, Any] = Field(default_factory=dict)
        runtime: distributed.Config = distributed.Config()

    document = config.Document({}, name="--set")
    for assignment in sets or ():
        section = assignment.partition("=")[0].split(".")[0].strip()
        if section not in sections:
            known = " and ".join(f"{name}.*" for name in sections)
            what = f"a trained model has its own; only {known} can be set here"
            example = "search.beams=8" if "search" in sections else "runtime.threads=2"
            advice = f"for instance --set {example}"
            raise ConfigError("CONFIG-SET", f"--set {assignment}", what, advice)
        document = config.override(document, assignment)
    for key, value in (("device", device), ("precision", precision), ("threads", threads)):
        if value is not None:
            document = config.override(document, f"runtime.{key}={json.dumps(value)}")
            document.places["runtime", key] = f"--{key} {value}"
    settings = config.validate(Settings, document)
    runtime, given = settings.runtime, settings.runtime.model_fields_set
    return EngineOptions(
        checkpoint=checkpoint,
        search=settings.search,
        device=runtime.device if "device" in given else None,
        precision=runtime.precision if "precision" in given else None,
        threads=runtime.threads if isinstance(runtime.threads, int) else None,
        processes=processes,
    )


def _score_table(scores: dict[str, Any]) -> list[str]:
    """One line a test set and metric: name, metric, score, signature."""
    width = max([8, *(len(name) for name in scores)])
    return [f"{'test set':{width}}  metric   score  signature"] + [
        f"{name:{width}}  {metric:6}  {value['score']:6.2f}  {value['signature']}"
        for name, metrics in scores.items()
        for metric, value in metrics.items()
    ]


# --------------------------------------------------------------------------------- errors


def main() -> None:
    """The command `mt`: does what the command line says and exits with its code."""
    code = run(sys.argv[1:])
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Of several processes, torch's threads may outlive Python and abort what has gone well.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Do what a command line says; tell what fails in one line; the exit code."""
    try:
        command = typer.main.get_command(app)
        with command.make_context("mt", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as error:
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("mt: stopped\n")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing must be flushed to it when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Elsewhere as error:
        return error.exit_code
    except Stopped as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except Exception as error:
        if os.environ.get("MT_DEBUG") == "1":
            traceback.print_exception(error)
        from mt import distributed

        told = _told(error)
        sys.stderr.write(f"{distributed.prefix()}{told or _bug(error)}\n")
        return told.exit_code if told else 1


def _told(error: Exception) -> MtError | None:
    """The failure as its reader can mend it; None when it is a bug of ours."""
    if isinstance(error, MtError):
        return error
    usage: Any = error
    if hasattr(error, "format_message"):  # what typer raises on a wrong command line
        place = usage.ctx.command_path if getattr(usage, "ctx", None) else "mt"
        what = " ".join(usage.format_message().split())
        return ConfigError("USAGE", place, what, f"see {place} --help")
    if memory.exhausted(error):
        what = f"out of memory ({str(error).splitlines()[0] if str(error) else 'no details'})"
        advice = "lower batching.micro_tokens or model sizes, or free memory on the machine"
        return MachineError("MEMORY", "the machine", what, advice)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = error.strerror or "the disk is full"
        advice = "free some space and run the same command again"
        return MachineError("DISK-FULL", error.filename or "standard output", what, advice)
    return None


def _bug(error: Exception) -> str:
    """A bug of ours, told in one line; its trace is kept in a file."""
    here = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if here in Path(frame.filename).parents]
    where = f"mt/{Path(ours[-1].filename).relative_to(here)}:{ours[-1].lineno}"
    log = _crash_log("".join(traceback.format_exception(error)))
    what = f"{type(error).__name__}: {printable(error)}"
    return f"mt: error[BUG] {where}: {what}\na fault of mt itself; please report it with {log}"


def _crash_log(trace: str) -> str:
    """The path of a file that holds the trace, or how to see it where none can be written."""
    from mt import files

    name = f"mt-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (files.cache_folder(), Path(tempfile.gettempdir())):
        try:
            files.write(files.make_folder(folder) / name, trace)
            return str(folder / name)
        except MtError:
            continue
    return "the trace that MT_DEBUG=1 shows"
