"""Laws of the package: import layers, kernels, disk access, names."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mt.config.plugins import FOLDERS

MT = Path(__file__).parents[1] / "mt"
LAYERS = [
    {"cli", "__main__", "__init__"},
    {"compression", "report"},
    {"training", "export"},
    {"evaluation", "attention_maps"},
    {"decoding"},
    {"data"},
    {"checkpoints", "models"},
    {"interfaces", "vocabulary"},
    {"runtime", "config"},
    {"errors", "special_tokens"},
]
"""Packages from top to bottom: a package imports only from lower layers."""
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
PLUGINS = {tuple(folder.split("/")) for folder in FOLDERS.values()} | {("cli", "commands")}
FILES = sorted(MT.rglob("*.py"))
TESTS = Path(__file__).parent
SHORT_COMMAND = 64
"""Commands of fewer lines may share a test file."""
TEST_FILES = {
    "__init__.py": "cli/test_main.py",
    "__main__.py": "cli/test_main.py",
    "data/sources/_demo": "data/sources/test_demo.py",
    "export/exporters/_huggingface": "export/exporters/test_huggingface.py",
    "training/cross_entropy.py": "training/objectives/test_cross_entropy.py",
    "training/skipped_updates.py": "training/test_loop.py",
}
"""Modules and folders that the test file of another module covers."""
MODULES = {path.relative_to(MT).with_suffix("").parts for path in FILES}


def package_of(path: Path) -> str:
    """The package of a file: its first folder, else its own name."""
    inside = path.relative_to(MT)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree: ast.AST) -> set[tuple[str, ...]]:
    """The modules of `mt` that a file imports, as tuples of names below `mt`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")[1:]) for a in node.names if a.name.startswith("mt.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mt":
            module = tuple(node.module.split(".")[1:])
            members = {(*module, a.name) for a in node.names}
            found |= {name if name in MODULES else module or name for name in members}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(("relative imports are not used here",))
    return found


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression; what is not a name becomes `?`."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def calls_of(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(dotted(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def expected_tests(path: Path) -> Path:
    """The file below `tests/` with the tests of a module: its own, or one of the exceptions."""
    inside = path.relative_to(MT)
    for name in (str(inside), str(inside.parent)):
        if name in TEST_FILES:
            return Path(TEST_FILES[name])
    own = inside.with_name(f"test_{inside.name}")
    if inside.parts[:2] == ("cli", "commands") and not (TESTS / own).is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return own.with_name("test_commands.py") if len(lines) < SHORT_COMMAND else own
    return own


def is_plugin(names: tuple[str, ...]) -> bool:
    return names[:-1] in PLUGINS or (names[:-2] in PLUGINS and names[-2].startswith("_"))


def is_private_part(path: Path, names: tuple[str, ...]) -> bool:
    """Whether an import is of the private folder `_kind/` of the plug-in `kind` itself."""
    inside = path.relative_to(MT).with_suffix("").parts
    for folder in PLUGINS:
        depth = len(folder)
        if inside[:depth] == folder == names[:depth] and len(names) > depth + 1:
            return names[depth] == f"_{inside[depth].lstrip('_')}"
    return False


def wrong_imports(path: Path, tree: ast.AST) -> list[str]:
    package = package_of(path)
    return [
        ".".join(names)
        for names in sorted(imports_of(tree))
        if names[0] not in LAYER
        or (names[0] != package and LAYER[names[0]] <= LAYER[package] and package != "__main__")
    ]


def import_cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def disk_calls(tree: ast.AST) -> list[str]:
    """The calls of a file that create, rename or delete on disk."""
    methods = "write_text|write_bytes|mkdir|unlink|rename|rmdir|touch|symlink_to|hardlink_to|tofile"
    functions = (
        r"os\.(rename|replace|remove|unlink|mkdir|makedirs|rmdir|symlink|link|truncate|fsync)"
        r"|shutil\.(?!disk_usage|which|get_terminal_size)\w+"
        r"|tempfile\.(?!gettempdir)\w+|(np|numpy)\.(save|savez|savetxt)|(\w+\.)*save_file"
    )
    found = []
    for name, call in calls_of(tree):
        last = name.rpartition(".")[2]
        plain = not call.keywords and len(call.args) == 1
        mode = [a for a in call.args[1:2] if last in ("open", "memmap")]
        mode += call.args[:1] if last == "open" and name.count(".") and plain else []
        mode += [k.value for k in call.keywords if k.arg == "mode"]
        writes = any(
            isinstance(m, ast.Constant)
            and re.fullmatch(r"[rwaxbt+]*[wax+][rwaxbt+]*", str(m.value))
            for m in mode
        )
        opened = name == "os.open" and dotted(call.args[0]) != "os.devnull"
        moved = last == "replace" and plain and "." in name
        method = "." in name and re.fullmatch(methods, last)
        if writes or opened or moved or method or re.fullmatch(functions, name):
            found.append(f"{name} at line {call.lineno}")
    return found


RUNS_TEXT = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "os.system", "os.popen",
    "os.path.expandvars", "string.Template", "jinja2.Template", "code.interact",
}  # fmt: skip
UNPACKS = {"extractall", "unpack_archive", "unsafe_load", "full_load", "load_all"}
"""Of an archive, all its members at once; of YAML, with its tags."""
OWN_PROGRAM = {
    "subprocess.run": {"vocabulary/trial.py", "data/sources/mtdata.py"},
    "subprocess.Popen": {"evaluation/metrics/command.py"},
}
"""Another program is started by these calls in these files only."""


def unsafe(tree: ast.AST, name: str = "") -> list[str]:
    """What runs text, unpickles or unpacks bytes, or starts a program; `name` is of the file."""
    found = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [n for n in names if n.split(".")[0] in ("pickle", "dill", "marshal", "shelve")]
    for called, call in calls_of(tree):
        last = called.rpartition(".")[2]
        found += [called] if called in RUNS_TEXT or last in UNPACKS or called == "yaml.load" else []
        found += [k.arg for k in call.keywords if k.arg in ("allow_pickle", "trust_remote_code")]
        found += [f"{called} shell" for k in call.keywords if k.arg == "shell"]
        starts = re.match(r"subprocess\.|os\.(exec|spawn|posix_spawn|startfile)", called)
        found += [called] if starts and name not in OWN_PROGRAM.get(called, ()) else []
    return found


NETWORK = re.compile(
    r"(socket|ssl|http|urllib|ftplib|smtplib|telnetlib|xmlrpc|asyncio|requests|httpx2?|aiohttp|urllib3"
    r"|huggingface_hub|fsspec|s3fs|boto3|wandb|mlflow|datasets)(\.|$)"
)
MAY_CONNECT = {
    "data/sources/huggingface.py": {"datasets.distributed", "datasets"},
    "data/addresses.py": {"httpx2", "socket"},
    "data/download.py": {"httpx2"},
    "runtime/lock.py": {"socket"},  # the name of this machine, for the owner of a lock
}
"""Files that import a library that can connect, and which."""


def network_imports(tree: ast.AST) -> set[str]:
    """The libraries that can connect to another machine, of those that a file imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if NETWORK.match(a.name)}
        elif isinstance(node, ast.ImportFrom) and NETWORK.match(node.module or ""):
            found.add(node.module)
    return found


def kernels(tree: ast.AST) -> list[str]:
    pattern = r"scaled_dot_product_attention|sdpa_kernel|SDPBackend|flex_attention|varlen_attn"
    names = {dotted(n) for n in ast.walk(tree) if isinstance(n, (ast.Attribute, ast.Name))}
    names |= {
        a.name
        for n in ast.walk(tree)
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
    }
    return sorted(n for n in names if re.search(pattern + r"|flash_attn|MultiheadAttention", n))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MT)))
class TestEachFile:
    def test_it_lies_in_a_known_package(self, path):
        assert package_of(path) in LAYER

    def test_it_imports_only_from_lower_layers(self, path):
        assert wrong_imports(path, tree_of(path)) == []

    def test_it_imports_no_plugin_by_name(self, path):
        imported = imports_of(tree_of(path))
        assert [n for n in imported if is_plugin(n) and not is_private_part(path, n)] == []

    def test_only_attention_names_a_kernel(self, path):
        assert path.name == "attention.py" or kernels(tree_of(path)) == []

    def test_only_the_modules_of_files_touch_the_disk(self, path):
        own = ("files.py", "text_files.py", "output.py", "lock.py")
        assert path.name in own or disk_calls(tree_of(path)) == []

    def test_nothing_is_unpickled_or_evaluated(self, path):
        assert unsafe(tree_of(path), path.relative_to(MT).as_posix()) == []

    def test_only_sources_of_data_connect(self, path):
        allowed = MAY_CONNECT.get(path.relative_to(MT).as_posix(), set())
        assert network_imports(tree_of(path)) <= allowed

    def test_its_words_are_full_and_its_first_line_says_what_it_is(self, path):
        tree = tree_of(path)
        assert len((ast.get_docstring(tree) or "").splitlines()[0]) > 10
        nodes = list(ast.walk(tree))
        names = {n.id for n in nodes if isinstance(n, ast.Name)}
        names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        names |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
        assert [n for n in names if re.search(r"(^|_)(src|tgt|trg)(_|$)", n)] == []
        classes = {n.name for n in nodes if isinstance(n, ast.ClassDef)}
        assert [n for n in classes if re.search(r"^Base|Manager|Helper|Util", n)] == []
        assert not re.search(r"util|helper|common|misc", path.stem)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MT)))
def test_every_module_has_its_test_file(path):
    assert (TESTS / expected_tests(path)).is_file()


def test_no_modules_import_each_other():
    graph = {
        ".".join(path.relative_to(MT).with_suffix("").parts): {
            ".".join(names) for names in imports_of(tree_of(path))
        }
        for path in FILES
    }
    assert import_cycle(graph) == []
    assert import_cycle({"a": {"b"}, "b": {"a"}}) != []


# Each law above is able to fail: a line that breaks it is noticed.


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("errors.py", "import mt.runtime.files"),
        ("runtime/files.py", "from mt.config.yaml_reader import read"),
        ("models/rnn.py", "from mt.data import collate"),
        ("models/modules/layers.py", "from mt.training import losses"),
        ("config/plugins.py", "from mt import nowhere"),
        ("config/plugins.py", "from . import errors"),
    ],
)
def test_an_import_from_above_is_noticed(name, line):
    assert wrong_imports(MT / name, ast.parse(line)) != []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("training/loop.py", "from mt.models.transformer import Config"),
        ("models/rnn.py", "from mt.models import transformer"),
        ("cli/commands/train.py", "from mt.cli.commands.eval import command"),
        ("data/sources/text.py", "from mt.data.sources._demo.lexicon import read"),
    ],
)
def test_an_import_of_a_plugin_is_noticed(name, line):
    imported = imports_of(ast.parse(line))
    assert [n for n in imported if is_plugin(n) and not is_private_part(MT / name, n)] != []


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'w')", "open(p, mode='ab')", "p.open('x')", "p.replace(q)", "p.mkdir()",
        "os.rename(p, q)", "shutil.rmtree(p)", "tempfile.mkstemp()", "np.save(p, a)",
        "np.memmap(p, mode='w+')", "safetensors.torch.save_file(t, p)", "os.open(p, 1)",
    ],
)  # fmt: skip
def test_a_line_that_touches_the_disk_is_noticed(line):
    assert disk_calls(ast.parse(line)) != []


@pytest.mark.parametrize(
    "line", ["open(p)", "open(p, 'rb')", "text.replace('a', 'b')", "os.open(os.devnull, 1)"]
)
def test_a_line_that_only_reads_is_not(line):
    assert disk_calls(ast.parse(line)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "torch.load(p)", "eval(x)", "np.load(p, allow_pickle=True)",
        "yaml.load(t)", "yaml.unsafe_load(t)", "tar.extractall(p)", "shutil.unpack_archive(p)",
        "os.system(t)", "subprocess.run(t)", "subprocess.Popen(t)", "os.execv(p, t)",
        "f(shell=True)",
        "load_dataset(p, trust_remote_code=True)", "os.path.expandvars(t)",
    ],
)  # fmt: skip
def test_what_unpickles_or_evaluates_is_noticed(line):
    assert unsafe(ast.parse(line)) != []


@pytest.mark.parametrize("line", ["import urllib.request", "from http import client", "import ssl"])
def test_what_connects_is_noticed(line):
    assert network_imports(ast.parse(line)) != set()


def test_a_module_without_its_test_file_is_noticed():
    assert not (TESTS / expected_tests(MT / "config" / "recipe_reader.py")).is_file()
    assert expected_tests(MT / "runtime" / "files.py") == Path("runtime/test_files.py")
    assert expected_tests(MT / "cli/commands/prune.py") == Path("cli/commands/test_commands.py")
    assert expected_tests(MT / "cli/commands/eval.py") == Path("cli/commands/test_eval.py")


def test_a_kernel_is_noticed():
    assert kernels(ast.parse("F.scaled_dot_product_attention(q, k, v)")) != []


@pytest.mark.parametrize(
    "module",
    ["mt", "mt.cli.main", "mt.config.recipe", "mt.training.reporter"],
)
def test_what_every_command_imports_does_not_import_torch(module):
    heavy = "{'torch', 'datasets', 'sentencepiece', 'sacrebleu', 'pandas', 'tensorboard'}"
    code = f"import {module}, sys; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=MT.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
