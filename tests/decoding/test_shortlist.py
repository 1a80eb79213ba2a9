"""The lexical shortlist: what is learned, its file, and searches among some ids only."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_run
from shortlists import TOY, engine, trained_on_all

from mt.checkpoints import bundle, run_directory
from mt.config.plugins import plugin
from mt.decoding import learn_shortlist, shortlist
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, ModelError

pytestmark = pytest.mark.usefixtures("small_shortlists")


class TestFile:
    def save(self, folder, digest="v"):
        found = learn_shortlist.build_shortlist(TOY, np.arange(len(TOY)), 450, 600, False, 2, 3)
        shortlist.save_shortlist(found, folder, digest)
        return found

    def test_what_is_written_is_what_is_read(self, tmp_path):
        written, read = self.save(tmp_path), shortlist.load_shortlist(tmp_path, "v")
        assert np.array_equal(read.pieces, written.pieces)
        assert np.array_equal(read.always, written.always)

    def test_a_run_without_one_names_the_command(self, tmp_path):
        with pytest.raises(ConfigError, match="SHORTLIST-NONE") as told:
            shortlist.load_shortlist(tmp_path, "v")
        assert f"mt shortlist {tmp_path}" in str(told.value)

    def test_one_of_another_vocabulary_is_refused(self, tmp_path):
        self.save(tmp_path, "another")
        with pytest.raises(ModelError, match="VOCAB-MISMATCH"):
            shortlist.load_shortlist(tmp_path, "v")

    def test_a_damaged_one_is_refused(self, tmp_path):
        self.save(tmp_path)
        path = tmp_path / shortlist.NAME
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[-5] ^= 1
        for data in (b"", whole[:9], whole[:-1], b"x" * 500, bytes(flipped)):
            path.write_bytes(data)
            with pytest.raises(ModelError, match="SHORTLIST-DAMAGED"):
                shortlist.load_shortlist(tmp_path, "v")

    def test_one_that_is_not_whole_never_appears(self, tmp_path, monkeypatch):
        self.save(tmp_path)
        before = (tmp_path / shortlist.NAME).read_bytes()
        monkeypatch.setenv("MT_FAULT", "write:*:enospc")
        with pytest.raises(Exception, match="DISK-FULL"):
            self.save(tmp_path, "another")
        assert (tmp_path / shortlist.NAME).read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == [shortlist.NAME]


def test_a_missing_one_is_reported_when_the_model_is_opened(tmp_path):
    run = tiny_run.make(tmp_path)
    with pytest.raises(ConfigError, match="SHORTLIST-NONE"):
        engine(run)
    with pytest.raises(ConfigError, match="SHORTLIST-NONE"):
        engine(run, processes=2)


def test_ctranslate2_refuses_it_by_name():
    settings = plugin("engines", "ctranslate2").settings
    config = plugin("search", "beam").Config(shortlist=True)
    with pytest.raises(ConfigError, match=r"search\.shortlist"):
        settings(config, EngineOptions())
    assert settings(config.model_copy(update={"shortlist": False}), EngineOptions())


def test_a_bundle_of_a_run_that_uses_one_searches_all(tmp_path):
    run = trained_on_all(tmp_path)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    kept = text.replace("shortlist: false", "shortlist: true")
    assert kept != text
    (run / "config.yaml").write_text(kept, encoding="utf-8")
    opened = run_directory.open_run(run)
    bundle.write_bundle(tmp_path / "made.mt", opened, opened.model())
    made = open_engine(tmp_path / "made.mt", EngineOptions(threads=1, precision="fp32"))
    assert len(list(made.translate(tiny_run.SOURCES))) == len(tiny_run.SOURCES)
    with pytest.raises(ConfigError, match=r"SHORTLIST-NONE.*made\.mt has none"):
        engine(tmp_path / "made.mt")
