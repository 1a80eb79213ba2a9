"""`mt data get` and three lines of YAML: from a name to encoded pairs, on this machine."""

from __future__ import annotations

import json
import socket

import pytest
import sacrebleu.dataset
import yaml
from made_archives import zipped
from sacrebleu.dataset.plain_text import PlainTextDataset

from mt.cli import main
from mt.config.schema import Languages
from mt.data.catalogue import find_opus

LINES = [(f"The house number {n} is green.", f"Das Haus Nummer {n} ist grün.") for n in range(99)]
EN, DE = ("".join(f"{pair[side]}\n" for pair in LINES).encode() for side in (0, 1))
TOKEN = "hf_planted0123456789"


@pytest.fixture
def web(site, tmp_path, monkeypatch):
    """Serve a corpus of OPUS, a test set and an archive; work in an empty folder."""
    direction = Languages(source="de", target="en")
    members = {"x.de": DE, "x.en": EN}
    archive = zipped(tmp_path / "made", members).read_bytes()
    site.mirror(find_opus("Tatoeba", "latest", direction).url, archive)
    url = site.mirror("https://x.example/a.zip", archive)
    known = PlainTextDataset("set", data=[url], langpairs={"en-de": ["x.en", "x.de"]})
    monkeypatch.setattr(sacrebleu.dataset, "DATASETS", {"set": known})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    tmx = "".join(
        f'<tu><tuv xml:lang="en"><seg>{a}</seg></tuv><tuv xml:lang="de"><seg>{b}</seg></tuv></tu>'
        for a, b in LINES
    )
    (tmp_path / "work" / "a.tmx").write_text(f"<tmx><body>{tmx}</body></tmx>")
    po = "".join(f'msgid "{a}"\nmsgstr "{b}"\n\n' for a, b in LINES)
    (tmp_path / "work" / "a.po").write_text(po)
    return site


def recipe(folder, train):
    value = {
        "languages": {"source": "en", "target": "de"},
        "data": {"train": [train], "valid": train, "drop_overlap": False, "processes": 1},
        "vocabulary": {"size": 360}, "training": {"max_steps": 1},
        "schedule": {"kind": "constant", "warmup_steps": 0},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(value))
    return str(path)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "opus", "name": "Tatoeba", "version": "latest"},
        {"kind": "sacrebleu", "name": "set"}, {"kind": "url", "url": "https://x.example/a.zip"},
        {"kind": "tmx", "file": "a.tmx"}, {"kind": "po", "file": "a.po"},
    ],
    ids=lambda source: source["kind"],
)  # fmt: skip
def test_three_lines_of_yaml_are_enough(web, tmp_path, capsys, source, monkeypatch):
    path = recipe(tmp_path / "work", source)
    assert main.run(["prepare", path]) == 0
    asked = len(web.requests)
    err = capsys.readouterr().err
    assert "99" in err
    lock = tmp_path / "work" / "data.lock"
    assert lock.is_file() == (source["kind"] not in ("tmx", "po"))
    # Again, without any network: the same cache entry.
    monkeypatch.setenv("MT_OFFLINE", "1")
    assert main.run(["prepare", path]) == 0
    assert "from the cache" in capsys.readouterr().err
    assert len(web.requests) == asked


def test_the_cache_goes_by_what_was_downloaded(web, tmp_path, capsys):
    path = recipe(tmp_path / "work", {"kind": "url", "url": "https://x.example/a.zip"})
    assert main.run(["prepare", path]) == 0
    corpora = tmp_path / "cache" / "corpora"
    assert len([each for each in corpora.iterdir() if each.is_dir()]) == 1
    (tmp_path / "moved").mkdir()
    moved = recipe(tmp_path / "moved", {"kind": "url", "url": "https://x.example/a.zip"})
    assert main.run(["prepare", moved]) == 0
    assert len([each for each in corpora.iterdir() if each.is_dir()]) == 1
    other = zipped(tmp_path / "made", {"x.en": EN, "x.de": DE.upper()}).read_bytes()
    web.mirror("https://x.example/a.zip", other)
    command = ["data", "get", "https://x.example/a.zip", "--to", str(tmp_path / "work"), "--update"]
    assert main.run(command) == 0
    assert main.run(["prepare", path]) == 0
    assert len([each for each in corpora.iterdir() if each.is_dir()]) == 2


def test_a_changed_file_is_exit_7(web, tmp_path, capsys):
    lock = tmp_path / "work" / "data.lock"
    entry = {"bytes": 1, "revision": "", "sha256": "0" * 64}
    lock.write_text(json.dumps({"https://x.example/a.zip": entry}))
    path = recipe(tmp_path / "work", {"kind": "url", "url": "https://x.example/a.zip"})
    assert main.run(["prepare", path]) == 7
    assert "mt: error[SHA256] https://x.example/a.zip" in capsys.readouterr().err


def test_get_writes_files_and_prints_yaml_alone(web, tmp_path, capsys):
    command = ["data", "get", "opus:Tatoeba", "sacrebleu:set", "--pair", "en-de", "--to", "data"]
    assert main.run(command) == 0
    out, err = capsys.readouterr()
    sources = yaml.safe_load(out)
    assert [each["kind"] for each in sources] == ["text", "text"]
    assert "fetching https://object.pouta.csc.fi" in err
    for source in sources:
        assert main.run(["prepare", recipe(tmp_path / "work", source)]) == 0


def test_no_token_is_shown_sent_or_written(web, tmp_path, capsys, monkeypatch):
    url = f"https://x.example/secret.zip?token={TOKEN}"
    web.mirror(url, lambda handler, times: handler.send_error(403))
    monkeypatch.setenv("MT_DEBUG", "1")
    path = recipe(tmp_path / "work", {"kind": "url", "url": "https://x.example/a.zip"})
    assert main.run(["prepare", path]) == 0
    assert main.run(["data", "get", url, "--to", "data"]) == 7
    shown = "".join(capsys.readouterr())
    for each in tmp_path.rglob("*"):
        shown += each.read_text(errors="replace") if each.is_file() else ""
    assert "secret.zip" in shown
    assert TOKEN not in shown
    headers = [str(headers) for path, headers in web.requests if "secret" not in path]
    assert TOKEN not in "".join(headers)


def test_training_and_translating_open_no_socket(web, tmp_path, capsys, monkeypatch):
    """What was downloaded is used without the network, and without MT_OFFLINE."""
    path = recipe(tmp_path / "work", {"kind": "opus", "name": "Tatoeba"})
    assert main.run(["prepare", path]) == 0

    def refuse(*arguments, **options):
        raise AssertionError("a socket is opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    small = ["model.d_model=16", "model.n_heads=2", "model.d_ff=16", "model.encoder_layers=1"]
    small += ["model.decoder_layers=1", "runtime.precision=fp32", "runtime.threads=1"]
    small += ["training.validate_sentences=1", "search.max_length_extra=1", "search.beams=1"]
    small += ["batching.tokens=256", "batching.micro_tokens=1024"]
    sets = [part for each in small for part in ("--set", each)]
    assert main.run(["train", path, "--run", "run", *sets]) == 0
