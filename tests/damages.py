"""Damaged and hostile files of a model, drawn at random, and a command that reads them.

A *damaged* file has lost what its checksums say. A *forged* one is as hostile, and the checksums
that lie beside it agree with it: they prove integrity, not origin.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import json
import os
import random
import shutil
import signal
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

SECONDS = 20
"""Time after which a command counts as hanging; it takes a fraction of a second."""
ODD_VALUES = [
    None, True, [], {}, "", "x", "7", "\x1b[31m", "../../x", "/etc/passwd", "\ud800", -1, 0, 0.5, 1,
    2**31, 2**63, 2**70, -(2**70), 1e308, float("nan"), float("inf"), [[1]], [None], {"": None},
    "x" * 5000, {"kind": "os.system"}, {"kind": "x" * 300}, [0] * 3000,
]  # fmt: skip
"""What a key of JSON may hold instead of what belongs there."""


# -------------------------------------------------------------------------------- contents


def places(value, path=()):
    """The path of each value inside a JSON value."""
    if not isinstance(value, (dict, list)):
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from places(each, (*path, key))


def changed_json(data: bytes, draw: random.Random) -> bytes:
    """JSON with one of its values replaced, deleted, or with a key more."""
    value = yaml.load(data, yaml.CSafeLoader) if not data.startswith(b"{") else json.loads(data)
    path = draw.choice(list(places(value)) or [()])
    if not path:
        return json.dumps(draw.choice(ODD_VALUES)).encode()
    around = value
    for key in path[:-1]:
        around = around[key]
    what = draw.randrange(8)
    if what == 0:
        del around[path[-1]]
    elif what == 1 and isinstance(around, dict):
        around[draw.choice(["x", "files", "kind", "../x", "\x1b]0;x\x07"])] = around[path[-1]]
    elif what == 2:
        around[path[-1]] = functools.reduce(lambda inner, _: [inner], range(draw.choice([40, 900])))
    else:
        around[path[-1]] = draw.choice(ODD_VALUES)
    return json.dumps(value).encode()


def changed_header(data: bytes, draw: random.Random) -> bytes:
    """Safetensors with a hostile header."""
    size = int.from_bytes(data[:8], "little")
    header, tensors = data[8 : 8 + size], data[8 + size :]
    what = draw.randrange(6)
    if what == 0:
        sizes = [0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1]
        return struct.pack("<Q", draw.choice(sizes)) + header + tensors
    if what == 1:
        facts = {"dtype": "F32", "shape": [2 ** draw.randrange(60)] * 2, "data_offsets": [0, 4]}
        header = json.dumps({**json.loads(header), "more": facts}).encode()
    elif what == 2:
        many = {f"t{i}": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]} for i in range(9999)}
        header = json.dumps(many).encode()
    elif what == 3:
        header = b'{"x": ' * draw.choice([50, 50_000]) + b"1"
    elif what == 4:
        value = json.loads(header)
        facts = value[draw.choice([name for name in value if name != "__metadata__"])]
        wrong: list[tuple[str, object]] = [
            ("dtype", draw.choice(["F16", "F64", "I8", "U99", "BOOL", None])),
            ("shape", draw.choice([[], [-1], [2**60], [0], [1.5], facts["shape"][::-1], [1] * 99])),
            ("data_offsets", draw.choice([[0, 2**62], [8, 4], [-4, 0], [0], None, [0, 4]])),
        ]
        facts.update([draw.choice(wrong)])
        header = json.dumps(value).encode()
    else:
        header = changed_json(header, draw)
    return struct.pack("<Q", len(header)) + header + tensors


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bytes with some bits flipped, a part missing, doubled, replaced, or more at the end."""
    place, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    what = draw.randrange(8)
    if what < 3:
        flipped = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 50])):
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    return {
        3: data[:place], 4: data[:place] + data[end:], 5: data[:end] + data[place:],
        6: data[:place] + draw.randbytes(end - place) + data[end:],
        7: data + draw.randbytes(draw.choice([1, 4096])),
    }[what]  # fmt: skip


def changed(name: str, data: bytes, draw: random.Random) -> bytes:
    """The contents of a file, changed as its kind invites."""
    if draw.random() < 0.3:
        return changed_bytes(data, draw)
    if name.endswith((".json", ".yaml")):  # JSON is YAML, too
        return changed_json(data, draw)
    if name.endswith(".safetensors"):
        return changed_header(data, draw)
    return changed_bytes(data, draw)


# ----------------------------------------------------------------------------- other files


def instead_of_files() -> dict[str, Callable[[Path], object]]:
    """What may lie where a file belongs: makes it at a path where nothing is."""
    found: dict[str, Callable[[Path], object]] = {
        "nothing": lambda path: None,
        "a folder": Path.mkdir,
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "an empty file": Path.touch,
    }
    if hasattr(os, "mkfifo"):
        found["a pipe"] = os.mkfifo
        found["unreadable"] = lambda path: path.touch(0)
    return found


@contextlib.contextmanager
def without_power_over_files() -> Iterator[None]:
    """Let permissions hold for root, too, in this thread (Linux: capabilities 1 and 2)."""
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        yield
        return
    library, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert library.capget(header, before) == 0
    without[:] = before[:]
    without[0] &= ~0b110
    assert library.capset(header, without) == 0
    try:
        yield
    finally:
        assert library.capset(header, before) == 0


# ---------------------------------------------------------------------------------- models


class ModelFiles:
    """The files of a model, which are changed and restored; each form knows its checksums."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path = path
        self.parts = {name: (path / name).read_bytes() for name in names}

    def damage(self, draw: random.Random) -> str:
        """Change one file; say how."""
        name = draw.choice(sorted(self.parts))
        others = instead_of_files()
        if draw.random() < 0.25:
            what = draw.choice(sorted(others))
            self.file(name).unlink()
            others[what](self.file(name))
        else:
            what = "changed"
            data = changed(name, self.parts[name], draw)
            self.file(name).write_bytes(data)
        return f"{name}: {what}"

    def forge(self, draw: random.Random) -> str:
        """Change one file and the checksums of it."""
        name = draw.choice(sorted(self.parts))
        parts = {**self.parts, name: changed(name, self.parts[name], draw)}
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            self.seal(parts, name)
        for each, data in parts.items():
            if data != self.parts[each]:
                self.file(each).write_bytes(data)
        return f"{name}: forged"

    def restore(self) -> None:
        """Write all that has been changed as it was."""
        for name, data in self.parts.items():
            file = self.file(name)
            if file.is_file() and not file.is_symlink():
                file.chmod(0o644)
                if file.read_bytes() == data:
                    continue
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
            file.write_bytes(data)

    def are_whole(self) -> bool:
        """Whether every file has the bytes that it had."""
        return all(
            self.file(name).is_file() and self.file(name).stat().st_mode & 0o400
            and self.file(name).read_bytes() == data
            for name, data in self.parts.items()
        )  # fmt: skip

    def file(self, name: str) -> Path:
        """The file on disk that has a part."""
        return self.path / name

    def seal(self, parts: dict[str, bytes], name: str) -> None:
        """Make the checksums of a changed part agree with it."""
        if name == "vocabulary.model":
            header = json.loads(parts["vocabulary.json"])
            digest = sha256(parts[name])
            header["files"] = {name: digest}
            key = [header[k] for k in ("format", "kind", "joint", "controls")] + [[digest] * 2]
            header["digest"] = sha256(json.dumps(key, sort_keys=True).encode())
            parts["vocabulary.json"] = json.dumps(header).encode()


class RunFiles(ModelFiles):
    """Of a run directory with one checkpoint."""

    def seal(self, parts, name):
        super().seal(parts, name)
        manifest = next(each for each in parts if each.endswith("MANIFEST.json"))
        if name != manifest:
            seal_manifest(parts, manifest)


class BundleFiles(ModelFiles):
    """Of a bundle, which is one file; its members can be forged."""

    def __init__(self, path):
        self.path = path
        self.parts = {path.name: path.read_bytes()}
        with zipfile.ZipFile(path) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}

    def file(self, name):
        return self.path

    def forge(self, draw):
        name = draw.choice(sorted(self.members))
        members = {**self.members, name: changed(name, self.members[name], draw)}
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            self.seal(members, name)
            if name != "MANIFEST.json":
                seal_manifest(members, "MANIFEST.json")
        what = draw.choice(["stored"] * 6 + ["deflated", "link", "renamed", "twice"])
        with zipfile.ZipFile(self.path, "w") as archive:
            for each, data in members.items():
                odd = each == name
                member = zipfile.ZipInfo("../" + each if odd and what == "renamed" else each)
                member.external_attr = (0o120777 if odd and what == "link" else 0o644) << 16
                packed = zipfile.ZIP_DEFLATED if odd and what == "deflated" else zipfile.ZIP_STORED
                archive.writestr(member, data, packed)
            if what == "twice":
                archive.writestr(zipfile.ZipInfo("again.json"), b"{}")
        return f"{name}: forged, {what}"


class FolderFiles(ModelFiles):
    """Of a CTranslate2 folder."""

    def seal(self, parts, name):
        super().seal(parts, name)
        if name != "mt.json":
            about = json.loads(parts["mt.json"])
            about["sha256"] = sha256(parts["model.bin"])
            about["files"] = {each: sha256(parts[each]) for each in about["files"]}
            about["vocabulary"] = json.loads(parts["vocabulary.json"])["digest"]
        else:
            about = json.loads(parts[name])
        own = {key: value for key, value in about.items() if key != "digest"}
        text = json.dumps(own, sort_keys=True)
        parts["mt.json"] = json.dumps({**own, "digest": sha256(text.encode())}).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seal_manifest(parts: dict[str, bytes], manifest: str) -> None:
    """Write the size and sha256 of each part into the manifest that lists it."""
    value = json.loads(parts[manifest])
    folder = manifest.removesuffix("MANIFEST.json")
    for name in value["files"]:
        data = parts[folder + name]
        value["files"][name] = {"sha256": sha256(data), "bytes": len(data)}
    parts[manifest] = json.dumps(value).encode()


# -------------------------------------------------------------------------------- commands


class Hangs(BaseException):
    """A command ran for longer than it may."""


@contextlib.contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Interrupt what hangs, where the system has alarms."""

    def hangs(number, frame):
        raise Hangs(f"it ran for more than {seconds} s")

    if not hasattr(signal, "alarm"):
        yield
        return
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_captured(arguments: list[str], stdin: bytes = b"") -> tuple[int, str, str]:
    """The exit code, standard output and standard error of a command in this process."""
    from mt.cli import main

    streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout, sys.stderr = out, err = [
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in "oe"
    ]
    try:
        with time_limit():
            code = main.run(arguments)
        for stream in (out, err):
            stream.flush()
        return code, *(stream.buffer.getvalue().decode("utf-8") for stream in (out, err))  # type: ignore[attr-defined]
    except Hangs as error:
        return -1, "", str(error)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
