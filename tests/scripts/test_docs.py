"""The commands and examples of README and docs do what they say, as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import client_script

from mt.config import plugins, recipe, validation, yaml_reader

ROOT = Path(__file__).parents[2]
LONG_PAGES = {"compression", "distillation", "export", "multilingual"}
"""Pages whose commands train for long; what they show has tests of its own."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOUNS = ["house:Haus", "tree:Baum", "river:Fluss", "bridge:Brücke", "market:Markt", "garden:Garten"]
ADJECTIVES = ["small:klein", "old:alt", "green:grün", "quiet:still", "new:neu"]
PAIRS = [
    (f"The {a} and the {b} are {c}.", f"Das {x} und das {y} sind {z}.")
    for a, x in (n.split(":") for n in NOUNS)
    for b, y in (n.split(":") for n in NOUNS)
    for c, z in (n.split(":") for n in ADJECTIVES)
]
# A command of the docs, made small: the same command with few updates of a tiny model.
SMALL = """
from mt.cli.main import run
if arguments[0] in ("train", "prepare", "distill"):
    place = 3 if arguments[0] == "distill" else 2
    config = arguments[place - 1]
    sets = ["training.max_steps=2", "schedule.kind=constant", "schedule.warmup_steps=0"]
    sets += ["data.processes=1", "vocabulary.size=360", "batching.tokens=256"]
    sets += ["batching.micro_tokens=1024", "runtime.precision=fp32", "runtime.threads=1"]
    # What has learned nothing does not end by itself.
    sets += ["search.max_length_ratio=0.3", "search.max_length_extra=4"]
    if "gru" not in open(config).read():
        sets += ["model.d_model=16", "model.n_heads=2", "model.d_ff=16"]
    if "demo" in config:
        size = 100 if arguments[0] == "distill" else 2000
        sets += ["vocabulary.size=500", f"data.train.0.size={size}", "data.valid.size=20"]
        tests = ["german", "chinese"] if "multilingual" in config else ["test"]
        sets += [f"data.test.{name}.size=20" for name in tests]
    if "multilingual" in config:
        sets += ["vocabulary.size=1000", "data.more_valid.0.size=20"]
    if "pretrain" in config or "multilingual" in config:
        sets += ["data.train.1.size=2000"]
    arguments[place:place] = [part for each in sets for part in ("--set", each)]
if "--dry-run" in arguments:
    from mt.training import dry_run
    dry_run.SECONDS = 0.1
code = run(arguments)
"""
# The launcher, which starts the small `mt` above instead of the module.
LAUNCHER = """
from torch.distributed.run import main
main(["--no-python" if argument == "-m" else argument for argument in arguments])
"""


def blocks(page, language):
    """The fenced blocks of a page that are of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page):
    """The shell commands of a page, comments and install lines left out."""
    skipped = re.compile(r"\s*(#|$|make |git clone|cd |python3 -m venv|\.venv/bin/pip|pip install)")
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if not skipped.match(line)]


def tmx(pairs):
    units = [
        f'<tu><tuv xml:lang="en"><seg>{s}</seg></tuv><tuv xml:lang="de"><seg>{t}</seg></tuv></tu>'
        for s, t in pairs
    ]
    return f"<tmx version='1.4'><header/><body>{''.join(units)}</body></tmx>"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Pages that prepare the same data do it once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path, fork_server, cache):
    """A folder as a reader has it: the shipped configs, `mt`, and data of their own."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name, pairs in (("train", PAIRS[20:]), ("valid", PAIRS[:10]), ("test", PAIRS[10:20])):
        for side, language in enumerate(("en", "de")):
            text = "".join(pair[side] + "\n" for pair in pairs)
            (tmp_path / f"{name}.{language}").write_text(text, encoding="utf-8")
        (tmp_path / f"{name}.tmx").write_text(tmx(pairs), encoding="utf-8")
    (tmp_path / "cache").symlink_to(cache)
    (tmp_path / "bin").mkdir()
    for name, program in (("mt", SMALL), ("torchrun", LAUNCHER)):
        client_script(tmp_path / "bin" / name, fork_server, program)
    return tmp_path


def shell(folder, command):
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "MT_CACHE": str(folder / "cache"),
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _forget_examples():
    """The examples are modules of a folder that is there for one test only."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def examples(folder):
    """Write the examples of docs/extending.md under the names that their first lines give."""
    page = ROOT / "docs" / "extending.md"
    found = {}
    for block in [*blocks(page, "python"), *blocks(page, "yaml")]:
        name = re.match(r"# (\S+)\n", block)[1]
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(block, encoding="utf-8")
        found[name] = path
    return found


def test_there_is_an_example_for_each_folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = [Path(name).stem for name in examples(tmp_path) if name.endswith(".py")]
    assert len(names) == 9
    for name in set(names) - {"dictionary"}:
        kind = f"my_lab.{name}"
        plugins.trust_kinds([kind])
        assert plugins.plugin("anything", kind).Config.model_fields["kind"].default == kind


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=pytest.mark.slow) if p.stem in LONG_PAGES else p
        for p in PAGES
        if commands(p) and "zh" not in p.name
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_commands_of_a_page_run_in_their_order(folder, page):
    examples(folder)
    for command in commands(page):
        done = shell(folder, command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    for code in blocks(page, "python") if page.name == "README.md" else []:
        (folder / "snippet.py").write_text(code, encoding="utf-8")
        done = shell(folder, f"PYTHONPATH={ROOT} {sys.executable} snippet.py")
        assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_recipes_of_a_page_are_valid(tmp_path, page, monkeypatch):
    examples(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for block in blocks(page, "yaml"):
        document = yaml_reader.parse(block, page.name)
        plugins.trust_kinds(plugins.dotted_kinds(document.value))
        validation.validate(recipe.Recipe, document)


CHECK = """
from pathlib import Path
from mt.config import plugins
from mt.export import export
from mt.decoding.types import EngineOptions
from mt.decoding.translate import Translator
from my_lab import dictionary

with plugins.trust_models():
    done = export.export_model(Path("runs/recipe"), "my_lab.vectors", Path("vectors.txt"))
assert done.worst is None
head, *rows = Path("vectors.txt").read_text(encoding="utf-8").splitlines()
assert head == f"{len(rows)} 64", head
assert {len(row.split(" ")) for row in rows} == {65}

Path("dictionary.tsv").write_text("house\\tHaus\\n", encoding="utf-8")
assert dictionary.accepts(Path(".")) and not dictionary.accepts(Path("runs"))
engine = dictionary.open(Path("."), EngineOptions())
assert Translator(engine).translate(["a house", ""]) == ["a Haus", ""]
"""


def test_the_examples_train_translate_and_export(folder):
    examples(folder)
    done = shell(folder, "PYTHONPATH=. mt train recipe.yaml --set training.max_steps=30")
    assert done.returncode == 0, done.stderr
    done = shell(folder, "PYTHONPATH=. mt translate runs/recipe --trust < test.en")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
    (folder / "check.py").write_text(CHECK, encoding="utf-8")
    done = shell(folder, f"PYTHONPATH=.:{ROOT} {sys.executable} check.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:mt|configs|docs|tests|scripts)/[\w./-]*\w)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == [] or page.name in ("extending.md", "CHANGELOG.md")


def test_the_chinese_readme_has_the_same_commands():
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert commands(english) == commands(chinese)
    assert blocks(english, "yaml") != []
    assert len(blocks(english, "yaml")) == len(blocks(chinese, "yaml"))
    headings = [
        len(re.findall(r"^#+ ", page.read_text(encoding="utf-8"), re.M))
        for page in (english, chinese)
    ]
    assert headings[0] == headings[1]


def test_no_page_knows_where_it_was_written():
    for page in PAGES:
        assert not re.search(r"/(home|root|work|tmp|Users)/", page.read_text(encoding="utf-8"))
