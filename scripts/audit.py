"""Look for known faults in the pinned packages: pip-audit over constraints.txt.

    python scripts/audit.py

Ends with the code of pip-audit: 1 where a package has a known fault. Where the database of
advisories, or pip-audit itself, cannot be fetched, or knows none of the packages, it says so and
ends with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
DATABASE = "https://pypi.org/pypi/pip/json"
"""What pip-audit asks about each package; this one stands for all."""
SECONDS = 20


def reason_not_to(url: str) -> str | None:
    """Return why the database cannot be read, or None."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            answer.read(1)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def skip(reason: str) -> int:
    """Say in several lines that nothing was looked for."""
    line = "=" * 72
    print(f"{line}\nNOT AUDITED: {reason}\nRun `make audit` again with a network.\n{line}")
    return 0


def install(folder: Path) -> Path | None:
    """Install pip-audit in an environment of its own; return its Python, None where it fails."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    options = ["--quiet", "--disable-pip-version-check"]
    done = subprocess.run([python, "-m", "pip", "install", *options, "pip-audit"], check=False)
    return python if done.returncode == 0 else None


def audit(url: str = DATABASE, command: Sequence[str | Path] | None = None) -> int:
    """Run pip-audit, or a command instead of it; return its exit code, 0 where it cannot run."""
    reason = reason_not_to(url)
    if reason is not None:
        return skip(f"{url} cannot be read ({reason})")
    with tempfile.TemporaryDirectory() as folder:
        if command is None:
            python = install(Path(folder))
            if python is None:
                return skip("pip-audit cannot be installed")
            command = [python, "-m", "pip_audit"]
        report = Path(folder) / "report.json"
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        command = [*command, *options, "-o", report, "-r", CONSTRAINTS]
        code = subprocess.run(command, check=False).returncode
        if not report.is_file():
            return code or 1
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    return summarise(packages, code)


def summarise(packages: Sequence[dict[str, object]], code: int) -> int:
    """Print what was found; packages that the database does not know are no good news."""
    for package in packages:
        for fault in package.get("vulns", []):  # type: ignore[attr-defined]
            fixed = ", ".join(fault["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {fault['id']}, mended in {fixed}")
    skipped = [str(package["name"]) for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return skip("the database knows none of the packages")
    print(f"{len(packages) - len(skipped)} of {len(packages)} packages audited")
    if skipped:
        print(f"NOT AUDITED, as the database does not know them: {', '.join(skipped)}")
    return code


if __name__ == "__main__":
    sys.exit(audit())
