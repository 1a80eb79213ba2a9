"""Archives that a test makes, sound ones and hostile ones."""

from __future__ import annotations

import io
import tarfile
import zipfile


def zipped(path, members, change=lambda info: None):
    """Write a zip archive of names with their contents; `change` each entry."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return path


def tarred(path, members, compress=bytes):
    """Write a tar archive of names with their contents, or of TarInfo."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for member in members.items() if isinstance(members, dict) else members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    path.write_bytes(compress(raw.getvalue()))
    return path
