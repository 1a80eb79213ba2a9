"""A corpus at a URL: files, members of archives, other formats; all from this machine."""

from __future__ import annotations

import gzip
import lzma

import pytest
import zstandard
from http_site import send
from made_archives import tarred, zipped
from pydantic import ValidationError
from source_sections import LANGUAGES, SCHEMA, pairs

from mt.config.plugins import dotted_kinds, trust_kinds
from mt.data.download import cache_path
from mt.errors import DataError, DownloadError, ModelError

EN, DE = b"A house.\nA bear.\n", "Ein Haus.\nEin Bär.\n".encode()
PAIRS = [("A house.", "Ein Haus."), ("A bear.", "Ein Bär.")]
BASE = "https://data.example"
TMX = b"""<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>A house.</seg></tuv>
<tuv xml:lang="de"><seg>Ein Haus.</seg></tuv></tu></body></tmx>"""


def read(folder, **section):
    return pairs(folder, kind="url", **section)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zstandard.compress])
def test_two_files(site, tmp_path, pack):
    source, target = site.mirror(f"{BASE}/a.en", pack(EN)), site.mirror(f"{BASE}/a.de", pack(DE))
    assert read(tmp_path, source=source, target=target) == PAIRS
    assert read(tmp_path, source=source) == [(a, None) for a, _ in PAIRS]
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        ({"source": "en", "target": "de"}, PAIRS),
        ({"source": "de", "target": "en"}, [(b, a) for a, b in PAIRS]),
    ],
)
def test_a_url_for_every_language(site, tmp_path, languages, expected):
    for code, text in (("en", EN), ("de", DE)):
        site.mirror(f"{BASE}/a.{code}.gz", gzip.compress(text))
    url = f"{BASE}/a.{{language}}.gz"
    assert read(tmp_path, url=url, languages=languages) == expected
    with pytest.raises(DownloadError, match=r"a\.fr\.gz"):
        read(tmp_path, url=url, languages={"source": "en", "target": "fr"})


def test_members_of_an_archive(site, tmp_path):
    for name, path in (
        ("a.zip", zipped(tmp_path / "a", {"x/t.en": EN, "x/t.de": DE})),
        ("a.tgz", tarred(tmp_path / "b", {"x/t.en": EN, "x/t.de": DE}, gzip.compress)),
    ):
        url = site.mirror(f"{BASE}/{name}", path.read_bytes())
        assert read(tmp_path, url=url) == PAIRS
        assert read(tmp_path, url=url, source="x/t.de", target="t.en") == [(b, a) for a, b in PAIRS]


@pytest.mark.parametrize(
    ("kind", "content", "columns"),
    [
        ("tsv", b"1\tA house.\tEin Haus.\n", {"source": 2, "target": 3}), ("tmx", TMX, {}),
        ("jsonl", b'{"en": "A house.", "de": "Ein Haus."}\n', {}),
        ("po", b'msgid "A house."\nmsgstr "Ein Haus."\n', {}),
    ],
)  # fmt: skip
def test_files_of_other_kinds(site, tmp_path, kind, content, columns):
    url = site.mirror(f"{BASE}/a", content)
    assert read(tmp_path, url=url, format=kind, **columns) == PAIRS[:1]


def test_an_intranet_needs_a_word(site, tmp_path):
    site.answers["/a.en"], site.answers["/a.de"] = EN, DE
    urls = {"source": site.url("/a.en"), "target": site.url("/a.de")}
    with pytest.raises(ModelError, match="MODEL-TRUST"):  # as from the recipe of a stranger's run
        read(tmp_path, **urls, private=True)
    assert site.requests == []
    trust_kinds(dotted_kinds({"data": {"train": [{"kind": "url", **urls, "private": True}]}}))
    assert read(tmp_path, **urls, private=True) == PAIRS
    with pytest.raises(DownloadError, match="URL-SCHEME"):
        read(tmp_path, **urls)
    both = {"url": site.url("/a.{language}"), "private": True}
    with pytest.raises(ModelError, match="MODEL-TRUST"):
        read(tmp_path, **both)
    trust_kinds(dotted_kinds({"kind": "url", **both}))
    assert read(tmp_path, **both) == PAIRS


def test_the_hash_in_a_recipe_must_be_right(site, tmp_path):
    url = site.mirror(
        f"{BASE}/a.zip", zipped(tmp_path / "a", {"t.en": EN, "t.de": DE}).read_bytes()
    )
    with pytest.raises(DownloadError, match="SHA256"):
        read(tmp_path, url=url, sha256="0" * 64)
    assert not cache_path(url).exists()


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"t.en": EN}, "t.en"), ({"t.en": EN, "t.de": DE + b"x\n"}, "2 lines against 3"),
        ({"t.en": EN, "t.de": b"\xff\n"}, "t.de:1"), ({"t.en": EN, "t.de": DE, "u.de": DE}, "u.de"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_exit_3_and_named(site, tmp_path, members, what):
    url = site.mirror(f"{BASE}/a.zip", zipped(tmp_path / "a", members).read_bytes())
    with pytest.raises(DataError) as error:
        read(tmp_path, url=url)
    assert what in str(error.value)
    assert url in str(error.value)


def test_a_hostile_archive_is_refused_before_a_line_is_read(site, tmp_path):
    members = {"t.en": EN, "t.de": DE, "../x": b""}
    url = site.mirror(f"{BASE}/a.zip", zipped(tmp_path / "a", members).read_bytes())
    with pytest.raises(DownloadError, match="ARCHIVE-UNSAFE"):
        read(tmp_path, url=url)


def test_a_page_to_log_in_is_no_corpus(site, tmp_path):
    url = site.mirror(f"{BASE}/a.zip", lambda handler, _: send(handler, 200, b"<html>Log in"))
    with pytest.raises(DownloadError, match="NOT-DATA"):
        read(tmp_path, url=url)


@pytest.mark.parametrize(
    "section",
    [
        {}, {"url": ""},
        {"format": "tsv"}, {"sha256": "0" * 64, "source": "https://a/b"}, {"source": 1},
        {"url": "https://a/b", "format": "demo"}, {"url": "https://a/b", "format": "tmz"},
        {"url": "https://a/b", "format": "tmx", "source": "x"}, {"url": "https://a/b", "source": 1},
        {"url": "https://a/b", "sha256": "zz"}, {"source": "https://a/b", "only": "target"},
        {"url": "https://a/b", "lock": "recipe.yaml"},
        {"url": "https://a/b?token=planted0123456789"}, {"source": "https://u:planted@a/b"},
        {"url": "https://a/{language}", "source": "https://a/b"},
        {"url": "https://a/{language}", "sha256": "0" * 64},
        {"url": "https://a/{language}", "format": "tsv"},
    ],
)  # fmt: skip
def test_a_form_that_does_not_fit_is_refused_before_anything_is_fetched(tmp_path, section):
    with pytest.raises(ValidationError):
        SCHEMA.validate_python(
            {"kind": "url", "languages": LANGUAGES, **section}, context={"folder": tmp_path}
        )
