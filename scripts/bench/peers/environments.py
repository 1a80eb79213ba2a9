"""A virtual environment for each toolkit, in `.bench/environments` or `$MT_BENCH/environments`.

An environment sees the packages of the one that runs this script behind its own, so that all
toolkits train with the same torch and it is there once; what a toolkit pins otherwise (numpy 1,
say) is installed in front of it.
"""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from harness import ROOT, say

from peers import Peer


class NoPeer(Exception):
    """A toolkit cannot be installed or run; the reason in a line."""


def home() -> Path:
    """Return the folder of everything that these measurements keep."""
    return Path(os.environ.get("MT_BENCH", ROOT / ".bench")).resolve()


def folder_of(peer: Peer) -> Path:
    """Return the environment of a toolkit."""
    return home() / "environments" / peer.name


def programs_of(peer: Peer) -> Path:
    """Return the folder of the programs of a toolkit."""
    return folder_of(peer) / "bin" if peer.installs else Path(sys.executable).parent


def install(peer: Peer) -> None:
    """Install a toolkit, if it is not there as it should be.

    Raises:
        NoPeer: pip fails.
    """
    if not peer.installs:
        return
    folder = folder_of(peer)
    mark = folder / "installed.txt"
    wanted = "\n".join(map(" ".join, peer.installs)) + "\n" + inspect.getsource(peer.patch)
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return
    say(f"installing {peer.version} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    own = packages_of(folder)
    (own / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    limits = folder / "constraints.txt"
    limits.write_text(torch_requirement(), encoding="utf-8")
    for arguments in peer.installs:
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
        with open(folder / "install.log", "a", encoding="utf-8") as log:
            done = subprocess.run(
                [*pip, "--constraint", limits, *arguments], stdout=log, stderr=subprocess.STDOUT
            )
        if done.returncode:
            raise NoPeer(f"cannot be installed, see {folder / 'install.log'}")
    peer.patch(own)
    mark.write_text(wanted, encoding="utf-8")


def packages_of(folder: Path) -> Path:
    """Return the site-packages of an environment."""
    (found,) = (folder / "lib").glob("python*/site-packages")
    return found


def torch_requirement() -> str:
    """Return the requirement of the shared torch, so that no toolkit installs another one."""
    from importlib.metadata import version

    return f"torch=={version('torch').partition('+')[0]}\n"
