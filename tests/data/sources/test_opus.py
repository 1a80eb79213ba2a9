"""A corpus of OPUS by name, from a mirror of this machine."""

from __future__ import annotations

import pytest
from made_archives import zipped
from source_sections import pairs

from mt.config.schema import Languages
from mt.data.catalogue import find_opus
from mt.errors import ConfigError, DataError, DownloadError

EN, DE = b"A house.\nA bear.\n", "Ein Haus.\nEin Bär.\n".encode()
PAIRS = [("A house.", "Ein Haus."), ("A bear.", "Ein Bär.")]
URL = find_opus("Tatoeba", "latest", Languages(source="de", target="en")).url
MEMBERS = {"README": b"", "Tatoeba.de-en.de": DE, "Tatoeba.de-en.en": EN, "Tatoeba.de-en.xml": b""}


@pytest.fixture
def opus(site, tmp_path):
    def serve(members, url=URL):
        site.mirror(url, zipped(tmp_path / "made", members).read_bytes())

    serve(MEMBERS)
    return serve


def read(folder, **section):
    return pairs(folder, kind="opus", **section)


def test_a_corpus_is_read_in_the_direction_of_the_recipe(opus, tmp_path):
    assert read(tmp_path, name="Tatoeba") == PAIRS
    turned = {"source": "deu", "target": "en_GB"}
    assert read(tmp_path, name="Tatoeba", languages=turned) == [(b, a) for a, b in PAIRS]
    assert '"revision": "v' in (tmp_path / "data.lock").read_text()


def test_an_older_version_is_fetched_by_its_name(opus, tmp_path):
    opus(MEMBERS, URL.replace(URL.split("/")[4], "v2021-07-22"))
    assert read(tmp_path, name="Tatoeba", version="v2021-07-22") == PAIRS
    with pytest.raises(DownloadError, match="404"):
        read(tmp_path, name="Tatoeba", version="v1999")


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"Tatoeba.de-en.de": DE}, "no members end in .en"),
        ({"Tatoeba.de-en.de": DE, "Tatoeba.de-en.en": EN + b"x\n"}, "3 lines against 2"),
    ],
)
def test_an_archive_with_other_members_is_exit_3(opus, tmp_path, members, what):
    opus(members)
    with pytest.raises(DataError) as error:
        read(tmp_path, name="Tatoeba")
    assert what in str(error.value)
    assert "opus:Tatoeba/v" in str(error.value)


def test_more_bytes_than_the_catalogue_knows_are_not_fetched(site, tmp_path):
    site.mirror(URL, bytes(30 << 20))
    with pytest.raises(DownloadError, match="URL-SIZE"):
        read(tmp_path, name="Tatoeba")


def test_a_wrong_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean Tatoeba"):
        read(tmp_path, name="Tatoba")
