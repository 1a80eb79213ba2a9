"""What fewer heads gain: decoding with pruned models beside the whole one, in turn.

    python scripts/bench/heads.py decoding RUN NEW ... --source FILE --reference FILE --rounds 7

Every measurement is a process of its own, the models in turn (A B C A B C ...); the table tells
medians and spread of lines a second without loading, and as ratio the median of the ratios of a
round, times as fast as the first model. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2]))  # mt of this checkout

from mt import checkpoint, evaluate

DECODERS = Path(__file__).with_name("decoders.py")


def decoding(given: argparse.Namespace) -> None:
    """Lines a second and BLEU of each model."""
    speeds: list[list[float]] = [[] for _ in given.models]
    bleu = [0.0 for _ in given.models]
    for _ in range(given.rounds):
        for number, model in enumerate(given.models):
            seconds, lines = translated(model, given)
            speeds[number].append(len(lines) / seconds)
            bleu[number] = bleu_of(lines, given)
    shape = f"{given.workers} x {given.threads} threads, {given.precision}"
    print(f"\nbeam {given.beams}, {shape}, {given.rounds} rounds:\n")
    print("| model | parameters | lines/s, median | lowest to highest | ratio | BLEU |")
    print("|---|---|---|---|---|---|")
    for model, found, score in zip(given.models, speeds, bleu, strict=True):
        ratio = statistics.median(a / b for a, b in zip(found, speeds[0], strict=True))
        print(
            f"| {model.name} | {parameters(model):,} | {statistics.median(found):.1f} "
            f"| {min(found):.1f} to {max(found):.1f} | {ratio:.3f} | {score:.2f} |"
        )


def translated(model: Path, given: argparse.Namespace) -> tuple[float, list[str]]:
    """The seconds of one process without loading, and the translations."""
    out = given.work / "out.txt"
    command = [
        sys.executable, str(DECODERS), "mt", str(model), "--source", str(given.source),
        "--out", str(out), "--beams", str(given.beams), "--workers", str(given.workers),
        "--threads", str(given.threads), "--precision", given.precision,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model}: {done.stderr[-2000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])["translate"]
    return seconds, out.read_text(encoding="utf-8").splitlines()


def bleu_of(lines: list[str], given: argparse.Namespace) -> float:
    recipe = evaluate.recipe_of(given.models[0])
    references = given.reference.read_text(encoding="utf-8").splitlines()
    found = evaluate.score(lines, [references], recipe.languages.target, recipe.evaluation)
    return found["BLEU"]["score"]


def parameters(model: Path) -> int:
    opened = checkpoint.open_run(model)
    return sum(tensor.numel() for tensor in checkpoint.load_weights(opened.folder).values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = parser.add_subparsers(required=True)
    one = sections.add_parser("decoding")
    one.set_defaults(section=decoding)
    one.add_argument("models", type=Path, nargs="+", help="the whole model's run first")
    one.add_argument("--source", type=Path, required=True)
    one.add_argument("--reference", type=Path, required=True)
    one.add_argument("--beams", type=int, default=5)
    one.add_argument("--workers", type=int, default=1)
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--precision", default="fp32")
    one.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        given.work = Path(temporary)
        given.section(given)


if __name__ == "__main__":
    main()
