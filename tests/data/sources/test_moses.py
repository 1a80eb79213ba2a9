"""An archive of this machine is read as it is; what an archive may hold has tests of its own."""

from __future__ import annotations

import gzip

from made_archives import tarred, zipped
from source_sections import pairs, refused

EN, DE = b"A house.\nA bear.\n", "Ein Haus.\nEin Bär.\n".encode()
PAIRS = [("A house.", "Ein Haus."), ("A bear.", "Ein Bär.")]


def test_both_sides_are_read_from_a_zip_or_tar(tmp_path):
    zipped(tmp_path / "a.zip", {"README": b"", "x.de-en.de": DE, "x.de-en.en": EN})
    tarred(tmp_path / "a.tgz", {"x.de": DE, "x.en": EN, "y.en": DE}, gzip.compress)
    assert pairs(tmp_path, kind="moses", file="a.zip") == PAIRS
    assert pairs(tmp_path, kind="moses", file="a.tgz", source="x.en") == PAIRS


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(EN)
    assert "not a zip or tar archive" in refused(tmp_path, kind="moses", file="a.zip")
    assert "no such file" in refused(tmp_path, kind="moses", file="b.zip")
