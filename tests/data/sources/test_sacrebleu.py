"""Test sets give the text that sacreBLEU itself gives; from a mirror of this machine."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest
from made_archives import tarred, zipped
from sacrebleu import dataset as sets
from source_sections import pairs

from mt.errors import ConfigError, DataError, DownloadError

SGM = """<srcset setid="x" srclang="any">
<doc docid="1" genre="news" origlang="en">
<p>
<seg id="1">{0} &amp;  one\u00a0more </seg>
<seg id="2">{0} two</seg>
</p></doc></srcset>
"""
XML = """<?xml version='1.0' encoding='utf-8'?>
<dataset id="x"><doc id="a" origlang="en"><src lang="en"><p><seg id="2">second</seg>
<seg id="1"> first  one</seg><seg id="10">tenth</seg><seg id="11">left</seg></p></src>
<ref lang="de" translator="refB"><p><seg id="1">B eins</seg><seg id="2">B zwei</seg></p></ref>
<ref lang="de" translator="refA"><p><seg id="1">A  eins</seg><seg id="2"/><seg id="10">A zehn</seg>
</p></ref><hyp system="s" lang="de"><seg id="1">h</seg><seg id="2">h</seg><seg id="10">h</seg>
<seg id="11">h</seg></hyp></doc>
<doc id="b" origlang="en" testsuite="t"><src lang="en"><seg id="1">no</seg></src>
<ref lang="de" translator="refA"><seg id="1">nein</seg></ref></doc></dataset>
"""


def made(kind, langpairs, urls, contents, **options):
    """A test set of sacreBLEU with these files, whose hashes are right."""
    md5 = [hashlib.md5(content).hexdigest() for content in contents]
    data = [f"https://sets.example/{url}" for url in urls]
    return kind("made/set", data=data, md5=md5, langpairs=langpairs, **options)


def cases(folder):
    """For each form of test set: the set, its files, and the direction."""
    sgm = {
        "dev/x-src.en.sgm": SGM.format("A").encode(),
        "dev/x-ref.de.sgm": SGM.format("Ä").encode(),
    }
    tsv = {"T/en-de.tsv": "1\t2\tA  b \tÄ ö\nx\ty\tc\t\n".encode()}
    plain = {"t/a.en": b"A  house. \n\nthird\n", "t/a.de": "Ein Haus.\u3000\nb\n d\n".encode()}
    xml = {"xml/x.en-de.xml": XML.encode()}
    tgz = {
        name: tarred(folder / name, members, gzip.compress).read_bytes()
        for name, members in (("sgm", sgm), ("tsv", tsv), ("plain", plain), ("xml", xml))
    }
    fake, addition = sets.fake_sgml.FakeSGMLDataset, sets.fake_sgml.WMTAdditionDataset
    ref = b"added one\n  added two  \n"
    yield made(fake, {"en-de": list(sgm)}, ["a.tgz"], [tgz["sgm"]]), [tgz["sgm"]]
    yield made(
        addition, {"en-de": ["dev/x-src.en.sgm", "made_set.x.ref"]}, ["a.tgz", "x.ref"],
        [tgz["sgm"], ref],
    ), [tgz["sgm"], ref]  # fmt: skip
    yield made(
        sets.tsv.TSVDataset, {"en-de": ["2:T/en-de.tsv", "3:T/en-de.tsv"]}, ["a.tar.gz"],
        [tgz["tsv"]],
    ), [tgz["tsv"]]  # fmt: skip
    yield (
        made(
            sets.plain_text.PlainTextDataset, {"en-de": list(plain)}, ["a.tar.gz"], [tgz["plain"]]
        ),
        [tgz["plain"]],
    )
    packed = gzip.compress(plain["t/a.de"])
    yield made(
        sets.plain_text.PlainTextDataset, {"en-de": ["t/a.en", "made_set.a.de.gz"]},
        ["a.tar.gz", "a.de.gz"], [tgz["plain"], packed],
    ), [tgz["plain"], packed]  # fmt: skip
    for refs in (["refA"], ["refB", "refA"]):
        yield (
            made(
                sets.wmt_xml.WMTXMLDataset, {"en-de": list(xml)}, ["a.tgz"], [tgz["xml"]], refs=refs
            ),
            [tgz["xml"]],
        )
    yield made(
        sets.wmt_xml.WMTXMLDataset, {"en-de": {"path": next(iter(xml)), "refs": ["refB"]}},
        ["a.tgz"], [tgz["xml"]], refs=["refA"],
    ), [tgz["xml"]]  # fmt: skip


def own_text(dataset, contents, folder):
    """What sacreBLEU makes of the files."""
    raw = folder / "raw"
    raw.mkdir()
    for url, content in zip(dataset.data, contents, strict=True):
        path = raw / f"made_set.{url.rpartition('/')[2]}"
        path.write_bytes(content)
        if path.name.endswith((".tgz", ".tar.gz")):
            with tarfile.open(path) as archive:
                archive.extractall(raw)
    dataset._outdir, dataset._rawdir = str(folder), str(raw)
    dataset.maybe_download = lambda: None
    references = dataset.get_reference_files("en-de")  # of a file of WMT in any order
    first = dataset.kwargs.get("refs", [""])[0]
    reference = next((path for path in references if path.endswith(first)), references[0])
    paths = [dataset.get_source_file("en-de"), reference]
    source, target = (Path(path).read_text().removesuffix("\n").split("\n") for path in paths)
    return list(zip(source, target, strict=True))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_each_form_gives_the_text_of_sacrebleu(site, tmp_path, monkeypatch):
    for number, (dataset, contents) in enumerate(cases(tmp_path)):
        folder = tmp_path / f"case{number}"
        folder.mkdir()
        monkeypatch.setattr(sets, "DATASETS", {"made/set": dataset})
        for url, content in zip(dataset.data, contents, strict=True):
            site.mirror(url, content)
        monkeypatch.setenv("MT_CACHE", str(folder / "cache"))
        found = pairs(folder, kind="sacrebleu", name="made/set")
        assert len(found) > 1
        assert found == own_text(dataset, contents, folder)


def first_case(folder, site, monkeypatch, change=bytes):
    dataset, (content,) = next(iter(cases(folder)))
    monkeypatch.setattr(sets, "DATASETS", {"made/set": dataset})
    site.mirror(dataset.data[0], change(content))


def test_other_bytes_than_the_table_of_sacrebleu_says_are_refused(site, tmp_path, monkeypatch):
    first_case(tmp_path, site, monkeypatch, lambda content: content + b"\0")
    with pytest.raises(DownloadError, match="md5"):
        pairs(tmp_path, kind="sacrebleu", name="made/set")


def test_a_missing_member_is_exit_3(site, tmp_path, monkeypatch):
    path = zipped(tmp_path / "z", {"other": b""})
    dataset = made(
        sets.plain_text.PlainTextDataset,
        {"en-de": ["a.en", "a.de"]},
        ["a.zip"],
        [path.read_bytes()],
    )
    monkeypatch.setattr(sets, "DATASETS", {"made/set": dataset})
    site.mirror(dataset.data[0], path.read_bytes())
    with pytest.raises(DataError, match=r"a\.en"):
        pairs(tmp_path, kind="sacrebleu", name="made/set")


def test_a_direction_is_not_turned_round(site, tmp_path, monkeypatch):
    first_case(tmp_path, site, monkeypatch)
    with pytest.raises(ConfigError, match="en-de"):
        pairs(
            tmp_path, kind="sacrebleu", name="made/set", languages={"source": "de", "target": "en"}
        )
