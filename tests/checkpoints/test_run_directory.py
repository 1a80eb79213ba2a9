"""Runs are opened by what they contain."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from prepared_corpora import GOOD
from saved_runs import saved

from mt.checkpoints import checkpoint, run_directory
from mt.config import schema
from mt.errors import ModelError
from mt.vocabulary.learn import learn_vocabulary

GOLDEN = Path(__file__).parents[1] / "golden"


def test_open_run_names_what_there_is(tmp_path, vocabulary):
    with pytest.raises(ModelError, match="no such run"):
        run_directory.open_run(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="not a run"):
        run_directory.open_run(tmp_path)
    saved(tmp_path, vocabulary, 5)
    with pytest.raises(ModelError, match="there are: step-00000005"):
        run_directory.open_run(tmp_path, "step-6")


def test_a_copied_run_still_opens(tmp_path, vocabulary):
    """RUN/best names a folder in the run: the run can be moved."""
    (tmp_path / "a").mkdir()
    folder = saved(tmp_path / "a", vocabulary, 5)
    run_directory.mark_best(tmp_path / "a", folder)
    shutil.move(tmp_path / "a", tmp_path / "b")
    best = run_directory.best_checkpoint(tmp_path / "b")
    assert best == tmp_path / "b" / "checkpoints" / folder.name
    assert checkpoint.integrity_error(best) is None


def link_of_earlier_versions(run, folder):
    (run / "best").symlink_to(f"checkpoints/{folder.name}")


def copy_of_a_link(run, folder):
    shutil.copytree(folder, run / "best")


@pytest.mark.parametrize(
    "mark", [run_directory.mark_best, link_of_earlier_versions, copy_of_a_link]
)
@pytest.mark.parametrize("name", ["best", "./best", "link", "checkpoints/step-00000005", "."])
def test_a_checkpoint_is_known_however_its_path_is_spelled(
    tmp_path, vocabulary, mark, name, monkeypatch
):
    run = tmp_path / "run"
    run.mkdir()
    folder = saved(run, vocabulary, 5)
    saved(run, vocabulary, 9)
    mark(run, folder)
    monkeypatch.chdir(run)
    Path("link").symlink_to("checkpoints/step-00000005")
    for path in (Path(name), run / name):
        where, chosen = run_directory.locate(path)
        assert where.resolve() == run.resolve()
        chosen = chosen or run_directory.choose_checkpoint(where, None)
        assert checkpoint.read_state(chosen).step == 5
        assert run_directory.is_run(path)
    run_directory.mark_best(run, run / "checkpoints" / "step-00000009")
    assert run_directory.best_checkpoint(run).name == "step-00000009"


def test_another_vocabulary_of_the_same_size_is_refused_before_the_weights_are_read(tmp_path):
    """Its own header agrees with it; the manifest of the checkpoint does not."""
    run = shutil.copytree(GOLDEN / "transformer", tmp_path / "run", symlinks=True)
    own = json.loads((run / "vocabulary.json").read_text())
    (tmp_path / "other").mkdir()
    lines = [[pair[side] for pair in GOOD] for side in (0, 1)]
    config = schema.VocabularyConfig(size=own["source_size"])
    other = learn_vocabulary(config, schema.Languages(source="en", target="de"), *lines)
    assert other.source_size == own["source_size"]
    other.save(run)
    with pytest.raises(ModelError, match="VOCAB-MISMATCH") as error:
        run_directory.open_run(run)
    for digest in (own["digest"], other.digest):
        assert digest[:16] in str(error.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "link.json", "a\\b", "", "."])
def test_a_manifest_lists_no_file_outside_its_folder(tmp_path, vocabulary, name):
    folder = saved(tmp_path, vocabulary, 5)
    secret = folder.parent / "secret"
    secret.write_text("secret")
    (folder / "link.json").symlink_to(secret)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"CKPT-HASH.*missing or not a file"):
        run_directory.open_run(tmp_path)
