"""Datasets of the Hugging Face hub and local files, against a hub of our own."""

import gzip
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import fork_server
import pytest
from source_sections import LANGUAGES, jsonl, pairs, refused

from mt.config.plugins import plugin
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.errors import ConfigError

# --------------------------------------------------------- huggingface: files of this machine

ROWS = [{"en": "one", "de": "eins", "n": 1}, {"en": "two\n", "de": "zw\nei", "n": 2}]

READ = [("one", "eins"), ("two", "zw ei")]


def parquet(rows):
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


CSV = b'en,de,n\none,eins,1\n"two\n","zw\nei",2\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", parquet(ROWS)), ("a.jsonl", jsonl(ROWS)), ("a.json", jsonl(ROWS)),
        ("a.csv", CSV), ("a.jsonl.gz", gzip.compress(jsonl(ROWS), mtime=0)),
        ("b.parquet", parquet([{"translation": row} for row in ROWS])),
    ],
)  # fmt: skip
def test_local_files_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert pairs(tmp_path, kind="huggingface", files=[name]) == READ
    assert pairs(tmp_path, kind="huggingface", files=[name, name]) == READ * 2
    other_codes = {"source": "eng_Latn", "target": "deu"}
    assert pairs(tmp_path, kind="huggingface", files=[name], languages=other_codes) == READ


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"files": ["a.jsonl"], "source": "q"}, "mt: error[DATA-COLUMN] a.jsonl: there is no "
         "column 'q'; there are: en, de, n"),
        ({"files": ["list.jsonl"]}, "mt: error[DATA-COLUMN] list.jsonl: column 'de' holds "
         "no text but list"),
        ({"files": ["bad.parquet"]}, "mt: error[DATA-FILE] bad.parquet: cannot be read ("),
        ({"files": ["bad.jsonl"]}, "mt: error[DATA-JSON] bad.jsonl:1: not JSON: "),
        ({"files": ["none.csv"]}, "mt: error[DATA-FILE] none.csv: no such file"),
    ],
)  # fmt: skip
def test_a_bad_local_file_is_refused(tmp_path, section, expected):
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "bad.jsonl").write_bytes(b'{"en": ')
    (tmp_path / "list.jsonl").write_text('{"en": "a", "de": [7]}')
    assert refused(tmp_path, kind="huggingface", **section).startswith(expected)


LIKE_OTHER_TYPES = ["None", "null", "NA", "nan", "7", "007", "1.50", "2000-01-10 10:00:00"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_looks_like_another_type_stays_text(tmp_path, name):
    rows = [{"en": value, "de": "x"} for value in LIKE_OTHER_TYPES]
    lines = ["en;de", *(f"{value};x" for value in LIKE_OTHER_TYPES)]
    text = "\n".join(lines) if name == "a.csv" else jsonl(rows).decode()
    (tmp_path / name).write_text(text)
    read = pairs(tmp_path, kind="huggingface", files=[name])
    assert [source for source, *_ in read] == LIKE_OTHER_TYPES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{files: [x.csv], source: a, target: a}", "both are 'a'; a pair has two sides"),
        ("{}", "give either dataset, an id on the hub, or files"),
        ("{dataset: a/b, files: [x.csv]}", "give either dataset, an id on the hub, or files"),
        ("{files: [x.csv, y.json]}", "files must all end in .parquet, .json, .jsonl or .csv"),
        ("{files: [x.txt]}", "files must all end in .parquet, .json, .jsonl or .csv"),
        ("{dataset: ../up}", "dataset: string should match pattern"),
        ("{dataset: a/b, trust_remote_code: true}", "trust_remote_code: unknown key"),
    ],
)
def test_a_wrong_section_is_refused(text, expected):
    with pytest.raises(ConfigError) as error:
        validate(plugin("sources", "huggingface").Config, parse(text))
    assert expected in str(error.value)


# ------------------------------------------------------------------- huggingface: the hub

COMMIT = "1" * 40

CARD = b"""---
configs:
- config_name: de-en
  data_files:
  - {split: train, path: de-en/train*}
  - {split: test, path: de-en/test*}
- config_name: fr-en
  data_files: [{split: train, path: fr-en/train*}]
---
"""

REPOSITORIES = {
    "lab/pairs": {
        "README.md": CARD,
        "de-en/train-00000.parquet": parquet([{"translation": row} for row in ROWS]),
        "de-en/test-00000.parquet": parquet([{"translation": ROWS[0]}]),
        "fr-en/train-00000.parquet": parquet([{"translation": {"fr": "a", "en": "b"}}]),
    },
    "lab/shards": {
        **{
            f"train-{k}.parquet": parquet(
                [{"en": f"{k} {i}", "de": f"{k}-{i}"} for i in range(300)]
            )
            for k in range(3)
        },
    },
    "lab/torn": {"train-0.parquet": parquet(ROWS), "train-1.parquet": b"no parquet"},
    "lab/lost": {"train-0.parquet": parquet(ROWS), "train-lost.parquet": parquet(ROWS)},
    "lab/columns": {"train.jsonl": jsonl(ROWS), "test.jsonl": jsonl(ROWS[:1])},
    "lab/script": {"README.md": b"", "script.py": b"raise SystemExit('ran')"},
    "lab/broken": {"README.md": b"", "train.parquet": b"no parquet"},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The few routes of the hub that reading a data set takes."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(self.path.partition("?")[0]).strip("/").split("/")
        api = path[0] == "api"
        kind, *rest = path[1:] if api else path
        files = REPOSITORIES.get("/".join(rest[:2]))
        if kind != "datasets" or files is None:
            return self.missing("RepoNotFound")
        what, *rest = [*rest[2:], ""]
        if rest[:1] and rest[0] not in ("main", COMMIT, ""):
            return self.missing("RevisionNotFound")
        if api and what in ("", "revision"):
            siblings = [{"rfilename": name} for name in files]
            name = "/".join(path[2:4])
            return self.value({"_id": "1", "id": name, "sha": COMMIT, "siblings": siblings})
        inside = "/".join(rest[1:]).strip("/")
        if api and what == "tree":
            return self.tree(files, f"{inside}/" if inside else "")
        if not api and what == "resolve" and inside in files and "lost" not in inside:
            tag = hashlib.sha256(files[inside]).hexdigest()
            return self.part(files[inside], {"ETag": f'"{tag}"'})
        return self.missing("EntryNotFound")

    def tree(self, files, folder):
        names = [name for name in files if name.startswith(folder)]
        if not names:
            return self.missing("EntryNotFound")
        found = [
            {"type": "file", "path": n, "size": len(files[n]), "oid": COMMIT}
            for n in names if "/" not in n.removeprefix(folder)
        ]  # fmt: skip
        inner = {n.removeprefix(folder).partition("/")[0] for n in names} - {
            item["path"].removeprefix(folder) for item in found
        }
        return self.value(
            [*found, *({"type": "directory", "path": folder + n, "oid": COMMIT} for n in inner)]
        )

    def do_POST(self):
        """What is known of some paths: it is asked before a file is streamed."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, _, *name, _, _ = urllib.parse.unquote(self.path).strip("/").split("/")
        files = REPOSITORIES["/".join(name)]
        asked = [path for path in json.loads(body)["paths"] if path in files]
        self.value(
            [{"type": "file", "path": p, "size": len(files[p]), "oid": COMMIT} for p in asked]
        )

    def part(self, content, headers):
        """A file, or the range of it that is asked for."""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self.answer(200, content, headers)
        first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        told = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self.answer(206, content[first : last + 1], told)

    def value(self, value):
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def missing(self, code):
        self.answer(404, b"", {"X-Error-Code": code})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


READER = """
import json, sys
from pydantic import TypeAdapter
from mt.config import schema
from mt.config.plugins import plugin
from mt.errors import MtError
from mt.runtime import console
console.protect_standard_streams()
for section in json.loads(sys.argv[1]):
    config = TypeAdapter(schema.Source).validate_python(section)
    try:
        pairs = plugin("sources", "huggingface").read(config)
        found = [[p.source, p.target, p.origin] for p in pairs]
    except MtError as error:
        found = [error.exit_code, *str(error).splitlines()]
    print(json.dumps(found))
"""
"""Reads sections in a process of its own, as the endpoint is read on importing `datasets`."""


def read_apart(python, home, endpoint, sections, **environment):
    sections = [{"kind": "huggingface", "languages": LANGUAGES, **s} for s in sections]
    return run_apart(python, READER, home, endpoint, sections, **environment)


def run_apart(python, program, home, endpoint, arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment = {
        **kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_secretsecret",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # which would be told to another host
        "PYTHONPATH": str(Path(__file__).parents[3]), **environment,
    }  # fmt: skip
    done = subprocess.run(
        [python, "-c", program, json.dumps(arguments)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = [path.read_bytes() for path in Path(home).rglob("*") if path.is_file()]
    for secret in ("hf_secretsecret", "planted"):
        assert secret not in done.stdout + done.stderr
        assert not any(secret.encode() in content for content in written)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Stands for Python with what `datasets` imports, but without `datasets`."""
    modules = ["torch", "mt.data.streaming", "pyarrow.dataset", "pandas", "fsspec"]
    folder = tmp_path_factory.mktemp("fork_server")
    with fork_server.start(folder, modules) as address:
        fork_server.client_script(folder / "python", address, fork_server.PYTHON)
        yield str(folder / "python")


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_is_read_by_id_config_revision_and_split(hub, tmp_path, python):
    told = read_apart(python, tmp_path, hub, [
        {"dataset": "lab/pairs"},
        {"dataset": "lab/pairs", "config": "de-en", "revision": COMMIT, "split": "test"},
        {"dataset": "lab/columns"},
        {"dataset": "lab/columns", "source": "de", "target": "en", "split": "train[1:]"},
    ])  # fmt: skip
    assert told == [
        [["one", "eins", "lab/pairs/train:1"], ["two", "zw ei", "lab/pairs/train:2"]],
        [["one", "eins", "lab/pairs/test:1"]],
        [["one", "eins", "lab/columns/train:1"], ["two", "zw ei", "lab/columns/train:2"]],
        [["zw ei", "two", "lab/columns/train[1:]:1"]],
    ]
    offline = [{"dataset": "lab/columns"}, {"dataset": "lab/pairs", "config": "de-en"}]
    again = read_apart(python, tmp_path, hub, offline, MT_OFFLINE="1")
    assert again == [told[2], told[0]]


def test_what_the_hub_does_not_have_is_reported(hub, tmp_path, python):
    sections = [
        {"dataset": "lab/none"},
        {"dataset": "lab/pairs", "revision": "v9"},
        {"dataset": "lab/pairs", "config": "xx"},
        {"dataset": "lab/pairs", "config": "de-en", "split": "valid"},
        {"dataset": "lab/pairs", "config": "fr-en"},
        {"dataset": "lab/columns", "source": "q"},
        {"dataset": "lab/script"},
        {"dataset": "lab/broken"},
    ]
    told = read_apart(python, tmp_path, hub, sections)
    assert [(code, message) for code, message, _ in told[:7]] == [
        (7, "mt: error[HUB-NONE] lab/none: Dataset 'lab/none' doesn't exist on the Hub or cannot "
            "be accessed."),
        (7, "mt: error[HUB-NONE] lab/pairs: Revision 'v9' doesn't exist for dataset 'lab/pairs' "
            "on the Hub."),
        (3, "mt: error[DATA-CONFIG] lab/pairs: there is no configuration 'xx'; there are: "
            "'de-en', 'fr-en'"),
        (3, "mt: error[DATA-SPLIT] lab/pairs: there is no split 'valid'; there are: "
            "'train', 'test'"),
        (3, "mt: error[DATA-COLUMN] lab/pairs/train: translation has no 'de'; it has: fr, en"),
        (3, "mt: error[DATA-COLUMN] lab/columns/train: there is no column 'q'; there are: "
            "en, de, n"),
        (3, "mt: error[HUB-SCRIPT] lab/script: a data set that is a program is not run"),
    ]  # fmt: skip
    assert "HF_TOKEN" in told[0][2]
    assert told[7][0] in (3, 7)


def test_without_the_hub_it_says_what_to_see_to(hub, tmp_path, python):
    (told,) = read_apart(python, tmp_path, hub, [{"dataset": "lab/pairs"}], HF_HUB_OFFLINE="1")
    assert told[0] == 7
    assert told[1].startswith("mt: error[HUB] lab/pairs: cannot be fetched (")
    for word in ("HTTPS_PROXY", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
        assert word in told[2]


def test_local_files_leave_nothing_outside_our_cache(tmp_path, python):
    (tmp_path / "a.parquet").write_bytes(parquet(ROWS))
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    section = {"files": [str(tmp_path / "a.parquet")]}
    (told,) = read_apart(python, home / "hf", "x", [section], HOME=str(home), MT_CACHE=str(cache))
    assert [pair[:2] for pair in told] == [list(pair) for pair in READ]
    assert not list(home.rglob("*"))
    assert not list(cache.rglob("*.arrow"))


STREAMER = """
import json, sys
from pydantic import TypeAdapter
from mt.config import schema
from mt.errors import MtError
from mt.data.streaming import read_chunks
from mt.runtime.distributed import World
def pairs(rank, position=None):
    chunks = read_chunks([config], 5, World(rank, ranks), position)
    return [[list(zip(chunk.source, chunk.target)), after] for chunk, after in chunks]
for section, ranks in json.loads(sys.argv[1]):
    config = TypeAdapter(schema.Source).validate_python(section)
    try:
        found = [pairs(rank) for rank in range(ranks)]
        print(json.dumps([found, pairs(0, found[0][0][1])]))
    except MtError as error:
        print(json.dumps([error.exit_code, *str(error).splitlines()]))
"""
"""Streams sections as so many processes, and again from behind the first chunk."""


def stream_apart(python, home, endpoint, *sections, ranks=1):
    common = {"kind": "huggingface", "languages": LANGUAGES}
    tasks = [[{**common, **section}, ranks] for section in sections]
    return run_apart(python, STREAMER, home, endpoint, tasks)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_hub_is_streamed_from_any_position(hub, tmp_path, python, ranks):
    ((found, rest),) = stream_apart(python, tmp_path, hub, {"dataset": "lab/shards"}, ranks=ranks)
    read = [tuple(pair) for chunks in found for pairs, _ in chunks for pair in pairs]
    assert sorted(read) == sorted((f"{k} {i}", f"{k}-{i}") for k in range(3) for i in range(300))
    assert len(rest) >= 1
    assert [pairs for pairs, _ in rest] == [pairs for pairs, _ in found[0][1:]]
    kept = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert not kept & {".arrow", ".parquet"}


def test_a_stream_of_the_hub_takes_a_split_a_config_and_columns(hub, tmp_path, python):
    told = stream_apart(
        python, tmp_path, hub,
        {"dataset": "lab/pairs", "config": "de-en", "revision": COMMIT, "split": "test"},
        {"dataset": "lab/columns", "source": "de", "target": "en"},
    )  # fmt: skip
    assert [found[0][0][0] for found, _ in told] == [
        [["one", "eins"]], [["eins", "one"], ["zw ei", "two"]],
    ]  # fmt: skip


def test_what_a_stream_of_the_hub_cannot_read_is_reported(hub, tmp_path, python):
    told = stream_apart(
        python, tmp_path, hub, {"dataset": "lab/none"}, {"dataset": "lab/pairs", "config": "xx"},
        {"dataset": "lab/columns", "source": "q"}, {"dataset": "lab/shards", "split": "valid"},
        {"dataset": "lab/torn"}, {"dataset": "lab/lost"},
    )  # fmt: skip
    assert [(code, message) for code, message, _ in told[:4]] == [
        (7, "mt: error[HUB-NONE] lab/none: Dataset 'lab/none' doesn't exist on the Hub or cannot "
            "be accessed."),
        (3, "mt: error[DATA-CONFIG] lab/pairs: there is no configuration 'xx'; there are: "
            "'de-en', 'fr-en'"),
        (3, "mt: error[DATA-COLUMN] lab/columns/train: there is no column 'q'; there are: "
            "en, de, n"),
        (3, "mt: error[DATA-SPLIT] lab/shards: there is no split 'valid'; there are: 'train'"),
    ]  # fmt: skip
    for (code, message, _), shard in zip(told[4:], ("train-1", "train-lost"), strict=True):
        assert code == 7
        assert f"{shard}.parquet: cannot be fetched (" in message


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_reported(tmp_path, python):
    (told,) = read_apart(python, tmp_path, "http://127.0.0.1:9", [{"dataset": "lab/pairs"}])
    assert (told[0], told[1][:31]) == (7, "mt: error[HUB] lab/pairs: canno")
    # Its password is in warnings of the hub's library, which has not seen standard error before.
    endpoint = "http://me:planted@127.0.0.1:9"
    read_apart(sys.executable, tmp_path, endpoint, [{"dataset": "lab/pairs"}])
