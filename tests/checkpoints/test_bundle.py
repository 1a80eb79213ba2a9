"""A bundle is the model, the same bytes each time; what is damaged or hostile is refused."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile

import pytest
import tiny_run

from mt.checkpoints import bundle, checkpoint
from mt.cli import main
from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, ModelError
from mt.evaluation import evaluate
from mt.export import export

ONE = EngineOptions(threads=1, precision="fp32")


@pytest.fixture(scope="module")
def made(run):
    return export.export_model(run, "bundle").path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, parts, **more):
    with zipfile.ZipFile(path, "w", **more) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def test_a_bundle_translates_and_scores_as_its_run(run, made):
    ours, theirs = open_engine(run, ONE), open_engine(made, ONE)
    pairs = [
        Pair(a, b, "en", "de", "x") for a, b in zip(tiny_run.SOURCES, tiny_run.TARGETS, strict=True)
    ]
    assert list(theirs.score(pairs)) == list(ours.score(pairs))
    assert list(theirs.translate(tiny_run.SOURCES)) == list(ours.translate(tiny_run.SOURCES))


def test_a_bundle_of_a_bundle_has_the_same_bytes(made, tmp_path):
    again = export.export_model(made, "bundle", tmp_path / "again.mt").path
    assert again.read_bytes() == made.read_bytes()


def test_its_weights_are_those_of_the_checkpoint(run, made):
    weights = run / "checkpoints" / checkpoint.checkpoint_name(7) / "model.safetensors"
    assert members(made)["model.safetensors"] == weights.read_bytes()


def test_it_holds_no_pickle_and_says_what_it_is(made):
    parts = members(made)
    manifest = json.loads(parts.pop("MANIFEST.json"))
    assert manifest["files"].keys() == parts.keys()
    assert not any(name.endswith((".pt", ".pkl", ".bin")) for name in parts)
    card = parts["README.md"].decode()
    assert "en to de" in card
    assert "licence" in card
    assert zipfile.ZipFile(made).infolist()[0].compress_type == zipfile.ZIP_STORED


def test_known_scores_and_data_are_on_the_card(tmp_path):
    run = tiny_run.make(tmp_path)
    corpus = {"pairs": 7, "files": {"source": {"path": "/home/me/train.en", "sha256": "abc"}}}
    (run / "report.json").write_text(json.dumps({"corpora": {"train.0": corpus}}))
    evaluate.evaluate(run, open_engine(run, ONE), ["test_one"])
    (run / "metrics.jsonl").write_text('{"step": 7, "valid_bleu": 12.345, "valid_chrf": 34.5}\n')
    made = export.export_model(run, "bundle").path
    card = members(made)["README.md"].decode()
    assert "- train.0, source: train.en, 7 pairs, sha256 abc" in card
    assert "- validation: BLEU 12.35 (while training)" in card
    assert "- test_one: chrF2 " in card
    assert "/home/me" not in card


def test_it_is_evaluated_beside_itself(made, tmp_path):
    path = tmp_path / "x.mt"
    shutil.copy(made, path)
    found = evaluate.evaluate(path, open_engine(path, ONE), ["test_one"])
    assert found["test_one"].scores["BLEU"]["score"] >= 0
    kept = tmp_path / "x.mt.hypotheses"
    assert len((kept / "test_one.txt").read_text().splitlines()) == len(tiny_run.SOURCES)
    assert len(evaluate.sample_translations(path, "test_one", 2)) == 2


def test_a_checkpoint_of_a_bundle_is_refused(made):
    with pytest.raises(ConfigError, match="holds one model"):
        bundle.open_loaded_model(made, "best")


def test_any_flipped_byte_of_its_members_is_noticed(made, tmp_path):
    data = made.read_bytes()
    with zipfile.ZipFile(made) as archive:
        places = [
            member.header_offset + 30 + len(member.filename) + member.file_size // 2
            for member in archive.infolist()
        ]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1
        path = tmp_path / "x.mt"
        path.write_bytes(damaged)
        with pytest.raises(ModelError) as error:
            bundle.open_loaded_model(path)
        assert error.value.exit_code == 4


def test_a_bundle_cut_short_anywhere_is_refused(made, tmp_path):
    data = made.read_bytes()
    for length in (0, 1, 4, 100, len(data) // 2, len(data) - 1):
        path = tmp_path / "x.mt"
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match="BUNDLE-DAMAGED"):
            bundle.open_loaded_model(path)


def relisted(parts):
    """The parts with a manifest that agrees with them."""
    import hashlib

    parts = {name: data for name, data in parts.items() if name != "MANIFEST.json"}
    listed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in parts.items()
    }
    return {"MANIFEST.json": json.dumps({"format": 1, "files": listed}).encode(), **parts}


def changed(parts, name, **values):
    """The parts, with other values in one of them, and a manifest that agrees."""
    return relisted({**parts, name: json.dumps({**json.loads(parts[name]), **values}).encode()})


HOSTILE = {
    "a path out of the folder": lambda parts: relisted({**parts, "../x": b"evil"}),
    "an absolute path": lambda parts: relisted({**parts, "/tmp/x": b"evil"}),
    "a hidden file": lambda parts: relisted({**parts, ".x": b"evil"}),
    "a member that is not listed": lambda parts: {**parts, "more.txt": b"evil"},
    "a member that is missing": lambda parts: {
        name: data for name, data in parts.items() if name != "state.json"
    },
    "another member's bytes": lambda parts: {**parts, "config.yaml": b"languages: {}"},
    "no weights": lambda parts: relisted(
        {name: data for name, data in parts.items() if name != "model.safetensors"}
    ),
    "weights that are none": lambda parts: relisted({**parts, "model.safetensors": b"x" * 99}),
    "a state that is none": lambda parts: relisted({**parts, "state.json": b"[1]"}),
    "a small part that is large": lambda parts: relisted({**parts, "README.md": b"x" * (11 << 20)}),
    "too many members": lambda parts: relisted({**parts, **{f"f{i}": b"" for i in range(40)}}),
    "JSON without end": lambda parts: relisted({**parts, "state.json": b"[" * 100_000}),
    "a step that is a text": lambda parts: changed(parts, "state.json", step="7"),
    "a number that is none": lambda parts: changed(parts, "state.json", best=float("nan")),
    "report without corpora": lambda parts: changed(parts, "report.json", corpora=["x"]),
    "threads that are a text": lambda parts: changed(parts, "resolved.json", threads="1"),
    "scores without end": lambda parts: relisted({**parts, "scores.json": b"[" * 100_000}),
    "an id of no control piece": lambda parts: changed(
        parts, "vocabulary.json", controls={"<2de>": 10**6}
    ),
    "a kind of vocabulary that there is none": lambda parts: changed(
        parts, "vocabulary.json", kind=[]
    ),
    "a size that is a text": lambda parts: {
        **parts,
        "MANIFEST.json": b'{"format": 1, "files": {"x": {"bytes": "1", "sha256": ""}}}',
    },
    "a manifest that is none": lambda parts: {**parts, "MANIFEST.json": b"{}"},
    "a newer format": lambda parts: {**parts, "MANIFEST.json": b'{"format": 9, "files": {}}'},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_hostile_is_refused_in_one_line(what, made, tmp_path, capsys):
    path = pack(tmp_path / "x.mt", HOSTILE[what](members(made)))
    assert main.run(["translate", str(path), "-i", str(made.parent / "train.en")]) == 4
    assert capsys.readouterr().err.startswith("mt: error[")
    assert [each.name for each in tmp_path.iterdir()] == ["x.mt"]


def test_a_compressed_bomb_is_not_opened(tmp_path):
    path = pack(tmp_path / "x.mt", {"model.safetensors": b"\0" * (50 << 20)}, compression=8)
    with pytest.raises(ModelError, match="compressed"):
        bundle.open_loaded_model(path)


def test_a_pickle_by_another_name_is_refused(tmp_path):
    path = tmp_path / "x.mt"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(ModelError, match="no sound bundle"):
        open_engine(path, ONE)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # as torch.save does
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
    path.write_bytes(stream.getvalue())
    with pytest.raises(ModelError, match=r"archive/data\.pkl"):
        open_engine(path, ONE)


def test_a_text_file_is_no_model(run):
    with pytest.raises(ModelError, match="not a run"):
        open_engine(run.parent / "train.en", ONE)
