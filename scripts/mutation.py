"""Do the tests notice when what they guard is broken? Thirteen sabotages, one at a time.

Each is a small edit of a copy of the tree, which the named tests must refuse. The exit code is 1
when one is not noticed, when an edit no longer fits the code, or when the tests fail without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
SECONDS = 240
"""Time after which tests that hang count as red."""


@dataclass(frozen=True)
class Sabotage:
    """What is broken, the case of docs/reliability.md, the edits, and the tests that notice it."""

    name: str
    case: str
    edits: tuple[tuple[str, str, str], ...]
    """(file, text that is there once, text instead)."""
    tests: tuple[str, ...]


SABOTAGES = [
    Sabotage(
        "nothing is forced to the disk", "C09",
        (("mt/runtime/files.py", "        os.fsync(handle)\n", "        pass\n"),),
        ("tests/checkpoints/test_checkpoint.py",),
    ),
    Sabotage(
        "a checkpoint is written under its final name", "C01",
        (
            (
                "mt/checkpoints/checkpoint.py",
                "    with files.staged_folder(final) as folder:\n",
                "    for folder in [files.make_folder(final)]:\n",
            ),
            (
                "mt/checkpoints/checkpoint.py",
                "        files.delete(final)  # one of the same step",
                "        pass  # one of the same step",
            ),
        ),
        ("tests/checkpoints/test_checkpoint.py", "tests/system/test_torture.py"),
    ),
    Sabotage(
        "the manifest is written first", "C05",
        (
            (
                "mt/checkpoints/checkpoint.py",
                "        for part, data in parts.items():\n"
                "            files.write_file(folder / part, data)\n",
                "",
            ),
            (
                "mt/checkpoints/checkpoint.py",
                "        files.delete(final)  # one of the same step",
                "        for part, data in parts.items():\n"
                "            files.write_file(folder / part, data)\n"
                "        files.delete(final)  # one of the same step",
            ),
        ),
        ("tests/checkpoints/test_checkpoint.py",),
    ),
    Sabotage(
        "the state of the fp16 scaler is not saved", "C14",
        (("mt/training/loop.py", "scaler=run.scaler.state_dict() or None", "scaler=None"),),
        ("tests/system/test_resume.py",),
    ),
    Sabotage(
        "the moving average is not restored", "C14",
        (("mt/checkpoints/checkpoint.py", "    if averaged is not None:\n", "    if False:\n"),),
        ("tests/system/test_resume.py",),
    ),
    Sabotage(
        "a resume begins its epoch again", "C11",
        (
            (
                "mt/training/resume.py",
                "    if state.scaler:\n",
                "    state = replace(state, window=0, update=0)\n    if state.scaler:\n",
            ),
        ),
        ("tests/system/test_resume.py",),
    ),
    Sabotage(
        "a resume begins with the first epoch", "C11",
        (
            (
                "mt/training/resume.py",
                "    if state.scaler:\n",
                "    state = replace(state, epoch=0)\n    if state.scaler:\n",
            ),
        ),
        ("tests/system/test_resume.py",),
    ),
    Sabotage(
        "lines end wherever str.splitlines ends them", "I06",
        (
            (
                "mt/runtime/text_files.py",
                'in enumerate(iter(partial(stream.readline, MAX_LINE), b""), start=1)',
                'in enumerate((x.encode("utf-8", "surrogateescape") for x in stream.read().decode('
                '"utf-8", "surrogateescape").splitlines(True)), start=1)',
            ),
        ),
        ("tests/data/sources/test_text.py", "tests/decoding/test_translate.py"),
    ),
    Sabotage(
        "two files are zipped whatever their lengths", "I02",
        (("mt/data/pairs.py", "enumerate(zip_longest(*sides)", "enumerate(zip(*sides)"),),
        ("tests/data/sources/test_text.py",),
    ),
    Sabotage(
        "a manifest may name files elsewhere", "X03",
        (
            (
                "mt/checkpoints/checkpoint.py",
                "if not FILE_NAME.fullmatch(name) or path",
                "if path",
            ),
        ),
        ("tests/checkpoints/test_checkpoint.py",),
    ),
    Sabotage(
        "a rank stops for its own signal only", "D03",
        (
            (
                "mt/training/loop.py",
                "    run.stop.agreed = int(stop)\n",
                "    run.stop.agreed = run.stop.number\n",
            ),
        ),
        ("tests/system/test_distributed.py",),
    ),
    Sabotage(
        "a name in an archive may lead out of it", "W14",
        (("mt/data/archives.py", ' or ".." in parts:', ":"),),
        ("tests/data/test_archives.py",),
    ),
    Sabotage(
        "a download is appended to when the server begins again", "W03",
        (
            (
                "mt/data/download.py",
                "                kept, total = 0, _content_length(response)\n",
                "                total = _content_length(response)\n",
            ),
        ),
        ("tests/data/test_download.py",),
    ),
]  # fmt: skip


def apply(tree: Path, sabotage: Sabotage) -> dict[Path, str]:
    """Edit the tree; return the files as they were."""
    before: dict[Path, str] = {}
    for name, old, new in sabotage.edits:
        path = tree / name
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            sys.exit(f"{sabotage.name}: {old.strip()!r} is {text.count(old)} times in {name}")
        before.setdefault(path, text)
        path.write_text(text.replace(old, new), encoding="utf-8")
    return before


def run_tests(tree: Path, tests: tuple[str, ...]) -> int | None:
    """Return the exit code of pytest, 1 where a test fails; None when it hangs."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line"]
    command += ["-m", "not slow and not gpu and not torture", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            return process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None


def judge(tree: Path, sabotage: Sabotage) -> str:
    """Return what the tests make of a sabotage."""
    before = apply(tree, sabotage)
    code = run_tests(tree, sabotage.tests)
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")
    words = {0: "NOT CAUGHT", 1: "caught", None: f"caught (hangs for {SECONDS} s)"}
    return words.get(code, f"NO RESULT (pytest ended with {code})")


def main() -> None:
    """Print a table of the sabotages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="sabotages whose name or case has this text")
    only = parser.parse_args().only or ""
    chosen = [each for each in SABOTAGES if only in f"{each.name} {each.case}"]
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        tests = tuple(dict.fromkeys(test for each in chosen for test in each.tests))
        if run_tests(tree, tests) != 0:
            sys.exit(f"without a sabotage these tests should pass: {' '.join(tests)}")
        print("| sabotage | case | result |\n|---|---|---|", flush=True)
        results = []
        for each in chosen:
            results.append(judge(tree, each))
            print(f"| {each.name} | {each.case} | {results[-1]} |", flush=True)
    caught = sum(result.startswith("caught") for result in results)
    print(f"\n{caught} of {len(results)} caught")
    sys.exit(caught < len(results))


if __name__ == "__main__":
    main()
