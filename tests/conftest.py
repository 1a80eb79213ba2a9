"""What all tests share: one thread, a fixed seed, and where the real corpora are."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import faults
import pytest
import sampled_vocabularies
import tiny_run
import torch
from distilled_runs import CONFIG
from http_site import open_site

from mt.decoding import worker_pool

PRELOADED = [
    "mt.cli.main", "mt.decoding.engines.ctranslate2", "ctranslate2", "mt.training.loop",
    "mt.decoding.engines.native", "mt.decoding.worker_pool",
    "mt.models.transformer", "mt.training.objectives.cross_entropy",
    "mt.training.optimizers.adamw", "mt.decoding.search.greedy", "mt.decoding.search.beam",
    "mt.data.sources.demo", "safetensors.torch", "sentencepiece", "sacrebleu",
    "torch.utils.tensorboard", "torch._dynamo",
]  # fmt: skip

faults.install()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell begins what it puts in the background; the programs that tests start, and stop
    # with SIGINT, would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = ("tests/system/", "tests/scripts/")
"""Folders of the files that take longest."""


def pytest_addoption(parser):
    text = "seed of the tests marked torture; without it one is drawn, and printed"
    parser.addoption("--seed", type=int, help=text)


def pytest_configure(config):
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1_000_000)


def pytest_report_header(config):
    return f"seed of the torture: {config.option.seed} (--seed {config.option.seed} replays it)"


@pytest.fixture
def seed(request):
    """The seed of a test: of `--seed` where it is marked torture, else always the same."""
    return request.config.option.seed if request.node.get_closest_marker("torture") else 1


@pytest.fixture
def figure(request):
    """Print a line at the end of the session, also from a process of xdist."""
    return lambda text: request.node.user_properties.append(("figure", text))


def pytest_terminal_summary(terminalreporter, config):
    reports = [each for each in terminalreporter.getreports("passed") if each.when == "call"]
    lines = [text for each in reports for name, text in each.user_properties if name == "figure"]
    if lines:
        terminalreporter.section(f"figures (seed {config.option.seed})")
        for line in lines:
            terminalreporter.line(line)


def pytest_collection_modifyitems(items):
    """Run long files first, so that two processes end at about the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests never see the user's cache."""
    if "MT_CACHE" not in os.environ:
        monkeypatch.setenv("MT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run directory with a tiny untrained model, which no test changes."""
    return tiny_run.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def vocabularies():
    """A vocabulary of each model that can be sampled from."""
    return {model: sampled_vocabularies.learned(model) for model in ("unigram", "bpe")}


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """The address of a server that starts `mt` commands without their imports."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    import fork_server

    with fork_server.start(tmp_path_factory.mktemp("fork_server")) as address:
        yield address


@pytest.fixture(scope="session")
def python(fork_server, tmp_path_factory):
    """Stands for `sys.executable` where a process may have imported more than it needs."""
    from fork_server import PYTHON, client_script

    path = tmp_path_factory.mktemp("python") / "python"
    client_script(path, fork_server, PYTHON)
    return str(path)


@pytest.fixture(scope="session")
def process_server():
    """A multiprocessing context whose processes need not import torch."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    for library in ("OMP", "OPENBLAS", "MKL"):  # no threads before the forks
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture(autouse=True, scope="session")
def _quick_pools(request):
    """A pool of processes costs no imports; tests/runtime/test_signals.py has a real one."""
    if not hasattr(os, "fork"):
        yield
        return
    process_server = request.getfixturevalue("process_server")
    with pytest.MonkeyPatch.context() as patch:
        quick = SimpleNamespace(get_context=lambda method: process_server)
        patch.setattr(worker_pool, "multiprocessing", quick)
        yield


@pytest.fixture
def vocabulary():
    """Stands for a joint vocabulary where only its size matters."""
    return SimpleNamespace(joint=True, source_size=90, target_size=90)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora; the test is skipped where there is none."""
    named = os.environ.get("MT_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real corpora at {folder} (set MT_SHARED_DATA)")
    return folder


@pytest.fixture
def distillation(tmp_path, monkeypatch):
    """A working directory with a teacher in it, and a student's recipe."""
    tiny_run.make(tmp_path)
    (tmp_path / "student.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A web server of this machine; it is the mirror of all https URLs, and the cache is empty."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "MT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    with open_site() as site:
        monkeypatch.setenv("MT_MIRROR", site.root)
        yield site
