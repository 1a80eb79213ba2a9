"""Members of archives: read as they are, or the whole archive is refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import struct
import tarfile
from pathlib import Path

import pytest
import zstandard
from made_archives import tarred, zipped

from mt.data import archives
from mt.errors import DataError, DownloadError

TEXT = "Ein Haus.\nEin Bär.\n".encode()
MEMBERS = {"dev/a.de": TEXT, "dev/a.en": b"A house.\nA bear.\n", "README": b"x"}
COMPRESSORS = {
    "": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}  # fmt: skip


def special(name, kind, link="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def content(stream):
    with stream:
        return stream.read()


def refused(path, use=archives.member_names):
    with pytest.raises(DownloadError) as error:
        use(path)
    assert error.value.exit_code == 7
    assert len(str(error.value).splitlines()) == 2
    return error.value.code


# ------------------------------------------------------------------------- sound archives


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_members_of_a_tar_are_read_whatever_compressed_it(tmp_path, ending):
    path = tarred(tmp_path / "download", MEMBERS, COMPRESSORS[ending])
    assert archives.is_archive(path)
    assert archives.member_names(path) == list(MEMBERS)
    assert content(archives.open_member(path, "dev/a.de")) == TEXT
    assert content(archives.open_member(path, "a.de")) == TEXT


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_members_of_a_zip_are_read_and_decompressed(tmp_path, ending):
    path = zipped(tmp_path / "download", {**MEMBERS, "b": COMPRESSORS[ending](TEXT)})
    assert archives.member_names(path) == [*MEMBERS, "b"]
    lines = archives.read_lines(lambda: archives.open_member(path, "b"), "b")
    assert list(lines) == ["Ein Haus.", "Ein Bär."]


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_single_file_is_decompressed(tmp_path, ending):
    path = tmp_path / "download"
    path.write_bytes(COMPRESSORS[ending](TEXT))
    assert not archives.is_archive(path)
    assert content(archives.open_text(path)) == TEXT


def test_two_members_can_be_read_at_once(tmp_path):
    for path in (zipped(tmp_path / "a", MEMBERS), tarred(tmp_path / "b", MEMBERS, gzip.compress)):
        streams = [archives.open_member(path, name) for name in ("a.de", "a.en")]
        assert [stream.readline() for stream in streams] == [b"Ein Haus.\n", b"A house.\n"]
        assert [content(stream) for stream in streams] == ["Ein Bär.\n".encode(), b"A bear.\n"]


def test_folders_and_dots_are_no_reason_to_refuse(tmp_path):
    folder = special("./dev", tarfile.DIRTYPE, mode=0o2755)
    path = tarred(tmp_path / "a", [special("./", tarfile.DIRTYPE), folder, ("./dev/a.de", TEXT)])
    assert archives.member_names(path) == ["./dev/a.de"]
    assert content(archives.open_member(path, "dev/a.de")) == TEXT
    assert archives.member_names(zipped(tmp_path / "b", {"dev/": b"", "dev/a": b""})) == ["dev/a"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.fr", "there are: dev/a.de"), ("x.txt", "two/x.txt"), ("a.d", "dev/a.de")],
)
def test_a_member_that_is_missing_or_ambiguous_is_named(tmp_path, name, what):
    path = zipped(tmp_path / "a", {**MEMBERS, "one/x.txt": b"", "two/x.txt": b""})
    with pytest.raises(DataError) as error:
        archives.open_member(path, name)
    assert name in str(error.value)
    assert what in str(error.value)


def test_an_archive_is_no_text(tmp_path):
    with pytest.raises(DataError, match=r"README"):
        archives.open_text(zipped(tmp_path / "a", MEMBERS))


# ---------------------------------------------------------------------- hostile archives

HOSTILE_NAMES = [
    "../x", "a/../../x", "/x", "C:\\x", "C:x", "..\\x", "\\\\host\\x", "../out-evil/x", "a" * 300,
    "a\nb", "", "dev/..", "a\x1b[2Jb",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_one_unsafe_name_refuses_the_whole_archive(tmp_path, make, name):
    folder = tmp_path / "inside" / "cache"
    folder.mkdir(parents=True)
    path = make(folder / "a", {"good": TEXT, name: b"evil"})
    assert refused(path) == "ARCHIVE-UNSAFE"
    assert refused(path, lambda p: archives.open_member(p, "good")) == "ARCHIVE-UNSAFE"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]


@pytest.mark.parametrize(
    "members",
    [
        [("a", b"1"), ("a", b"2")], [("a", b"1"), ("./a", b"2")], [("a", b"1"), ("A", b"2")],
        [("\u00e9", b"1"), ("e\u0301", b"2")], [("a", b"1"), ("a/b", b"2")],
        [("A/b", b"1"), ("a", b"2")],
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_clash_refuse_the_whole_archive(tmp_path, members):
    assert refused(zipped(tmp_path / "a", members)) == "ARCHIVE-UNSAFE"
    assert refused(tarred(tmp_path / "b", members)) == "ARCHIVE-UNSAFE"


@pytest.mark.parametrize(
    "member",
    [
        special("x", tarfile.SYMTYPE, "/etc/passwd"), special("x", tarfile.SYMTYPE, "good"),
        special("x", tarfile.LNKTYPE, "good"), special("x", tarfile.CHRTYPE),
        special("x", tarfile.BLKTYPE), special("x", tarfile.FIFOTYPE),
        special("x", tarfile.REGTYPE, mode=0o4755), special("x", tarfile.REGTYPE, mode=0o2755),
        special("x", tarfile.GNUTYPE_SPARSE),
        special("a\udcff", tarfile.REGTYPE),
    ],
    ids=["link", "link inside", "hard link", "device", "block", "pipe", "setuid", "setgid",
         "sparse", "not UTF-8"],
)  # fmt: skip
def test_a_member_that_is_no_plain_file_refuses_the_whole_archive(tmp_path, member):
    path = tarred(tmp_path / "a", [("good", TEXT), member])
    assert refused(path) in ("ARCHIVE-UNSAFE", "ARCHIVE-DAMAGED")
    assert refused(path, lambda p: archives.open_member(p, "good"))


@pytest.mark.parametrize(
    "mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFREG | 0o4755]
)
def test_a_link_or_device_in_a_zip_refuses_the_whole_archive(tmp_path, mode):
    def change(info):
        info.external_attr = mode << 16

    assert refused(zipped(tmp_path / "a", MEMBERS, change)) == "ARCHIVE-UNSAFE"


def test_a_nul_in_a_name_refuses_the_whole_archive(tmp_path):
    path = zipped(tmp_path / "a", {"good": TEXT, "a.de_/../x": b""})
    path.write_bytes(path.read_bytes().replace(b"a.de_", b"a.de\0"))
    assert refused(path) == "ARCHIVE-UNSAFE"


def test_an_encrypted_member_refuses_the_whole_archive(tmp_path):
    path = zipped(tmp_path / "a", {"a": TEXT})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(raw))
    assert refused(path) == "ARCHIVE-UNSAFE"


# ------------------------------------------------------------------------------- bombs

ZEROS = bytes(101 << 20)


@pytest.fixture(scope="module")
def bombs():
    """101 MiB of zeros, by the ending of their compression."""
    return {
        ".gz": gzip.compress(ZEROS, 9), ".xz": lzma.compress(ZEROS, preset=0),
        ".zst": zstandard.compress(ZEROS),
    }  # fmt: skip


def read_all(stream):
    with stream:
        while stream.read(1 << 20):
            pass


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_bomb_is_stopped_wherever_it_lies(tmp_path, bombs, ending):
    path = tmp_path / "a"
    path.write_bytes(bombs[ending])
    assert refused(path, lambda p: read_all(archives.open_text(p))) == "ARCHIVE-BOMB"
    inside = tarred(tmp_path / "b", {"x": bombs[ending]})
    assert refused(inside, lambda p: read_all(archives.open_member(p, "x"))) == "ARCHIVE-BOMB"


def test_a_bomb_in_a_zip_or_around_a_tar_is_stopped(tmp_path):
    path = zipped(tmp_path / "a", {"x": ZEROS})
    assert refused(path, lambda p: read_all(archives.open_member(p, "x"))) == "ARCHIVE-BOMB"
    path = tarred(tmp_path / "b", {"x": ZEROS, "y": b""}, lambda raw: zstandard.compress(raw))
    assert refused(path) == "ARCHIVE-BOMB"


def test_text_that_compresses_well_is_no_bomb(tmp_path):
    text = b"The house is small and the garden is green.\n" * 20_000
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(text))
    assert len(text) > archives.MAX_RATIO * path.stat().st_size
    assert content(archives.open_text(path)) == text


def test_too_many_members_refuse_the_whole_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    members = {str(number): b"" for number in range(101)}
    assert refused(zipped(tmp_path / "a", members)) == "ARCHIVE-UNSAFE"
    assert refused(tarred(tmp_path / "b", members)) == "ARCHIVE-UNSAFE"


def test_members_of_a_zip_that_overlap_refuse_the_whole_archive(tmp_path):
    path = zipped(tmp_path / "a", {"a": bytes(1000), "b": bytes(1000)})
    content = path.read_bytes()
    second = content.rindex(b"PK\x01\x02")
    first_offset = struct.pack("<I", 0)
    path.write_bytes(content[: second + 42] + first_offset + content[second + 46 :])
    assert refused(path) == "ARCHIVE-UNSAFE"


def test_a_size_that_lies_gives_no_more_than_it_says(tmp_path):
    path = zipped(tmp_path / "a", {"a": bytes(5000)})
    content = path.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 10))
    path.write_bytes(content)
    use = lambda p: read_all(archives.open_member(p, "a"))  # noqa: E731
    assert refused(path, use) == "ARCHIVE-DAMAGED"


@pytest.mark.parametrize("make", [zipped, lambda p, m: tarred(p, m, gzip.compress)])
def test_a_damaged_archive_is_one_line(tmp_path, make):
    content = make(tmp_path / "a", {"a": TEXT * 1000}).read_bytes()
    for number, end in enumerate(range(10, len(content), len(content) // 9)):
        for damaged in (content[:end], content[:end] + b"\xff\xff" + content[end + 2 :]):
            path = Path(tmp_path / f"{number}-{len(damaged)}")
            path.write_bytes(damaged)
            with contextlib.suppress(DownloadError, DataError):
                read_all(archives.open_member(path, "a"))


def test_a_member_before_the_beginning_of_the_file_is_damage(tmp_path):
    raw = bytearray(zipped(tmp_path / "a", {"a": TEXT}).read_bytes())
    place = raw.index(b"PK\x05\x06") + 16  # of the offset of the directory
    raw[place : place + 4] = struct.pack("<I", struct.unpack_from("<I", raw, place)[0] + 9)
    (tmp_path / "a").write_bytes(bytes(raw))
    assert refused(tmp_path / "a", lambda p: archives.open_member(p, "a")) == "ARCHIVE-DAMAGED"
