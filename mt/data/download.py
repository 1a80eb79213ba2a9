"""Fetch a file over HTTP into the cache: complete and verified, or not at all.

A file grows under a hidden name. A try that fails is repeated, later and later, and goes on where
the last one ended if the server still has the same file (RFC 9110, sections 13.1.5 and 14). A
complete file is renamed; its hash must be the one that the recipe or `data.lock` says. The name in
the cache is a hash of the URL: no server chooses it. No cookie and no token is sent.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from mt.data import addresses, data_lock
from mt.data.data_lock import Pin, lock_key
from mt.errors import DownloadError, printable
from mt.runtime import files
from mt.runtime.console import print_line
from mt.runtime.lock import lock

if TYPE_CHECKING:
    from httpx2 import Client, Response

MAX_BYTES = 200 << 30
"""Of a file whose size nobody knows before."""
MAX_REDIRECTS = 5
MAX_TRIES = 5
"""Tries in a row that fetch nothing."""
MAX_ALL_TRIES = 100
MAX_WAIT = 120.0
"""Seconds that a server may ask to wait (Retry-After)."""
STALL_SECONDS = 30.0
"""A connection that brings fewer than MIN_RATE bytes a second for so long is given up."""
MIN_RATE = 1000
_CONNECT_SECONDS = 20.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be another one soon."""
_ADVICE = "see the URL, the network and its proxy; the next try goes on where this one ended"
Progress = Callable[[int, int | None], None]
"""Shows the bytes that are there, of those that there will be."""


@dataclass(frozen=True)
class Remote:
    """A file of the web."""

    url: str
    revision: str = ""
    """Version of the corpus, for `data.lock`."""
    sha256: str | None = None
    """What its hash must be."""
    md5: str | None = None
    """What its hash must be, from a table that has no other."""
    private: bool = False
    """Whether http and private addresses are allowed."""
    bytes: int | None = None
    """About how large it is, if that is known."""

    @property
    def most_bytes(self) -> int:
        """Most bytes that are fetched."""
        return MAX_BYTES if self.bytes is None else int(self.bytes * 1.1) + (1 << 20)


@dataclass(frozen=True)
class Download:
    """A file that was fetched."""

    path: Path
    sha256: str


class _TryAgainError(Exception):
    """A failure that another try may mend, after some seconds if the server says so."""

    def __init__(self, what: str, seconds: float | None = None) -> None:
        self.what, self.seconds = what, seconds
        super().__init__(what)


def fetch(remote: Remote, lock_file: Path, update: bool = False) -> Download:
    """Return a file of the web, from the cache if it is there; record it in `data.lock`.

    Of several processes one fetches and the others wait. With `update` what `data.lock` says is
    replaced by what is fetched now.

    Raises:
        DownloadError: not reachable, not allowed, or not the file that it should be.
        MachineError: it cannot be written.
    """
    addresses.parse_url(remote.url, remote.private, remote.url)
    path = cache_path(remote.url)
    pin = None if update else data_lock.find_pin(lock_file, remote.url)
    if update or not path.is_file() or _mismatch(remote, pin, path):
        files.make_cache_folder("downloads")
        with lock(path.with_suffix(".lock"), wait=True):
            stale = path.is_file() and (update or _mismatch(remote, pin, path))
            if stale and not is_offline():
                _set_aside(path)
            if update or not path.is_file():
                _download(remote, path)
            wrong = _mismatch(remote, pin, path)
            if wrong:
                bad = _set_aside(path)
                advice = f"it lies in {bad}; if it is right, {_how_to_accept(remote, lock_file)}"
                raise DownloadError("SHA256", remote.url, wrong, advice)
    digest = _sha256(path)
    if pin is None:
        revision = remote.revision or _read_text(path.with_suffix(".etag"))
        pin = Pin(path.stat().st_size, digest, printable(revision, 100))
        data_lock.record_pin(lock_file, remote.url, pin)
    return Download(path, digest)


def cache_path(url: str) -> Path:
    """Return where a URL lies when it has been fetched."""
    name = hashlib.sha256(lock_key(url).encode()).hexdigest()[:32]
    return files.cache_folder() / "downloads" / name


def is_offline() -> bool:
    """Whether `MT_OFFLINE` forbids the network."""
    return os.environ.get("MT_OFFLINE", "").lower() in ("1", "true", "yes", "on")


# ------------------------------------------------------------------------------- integrity


def _sha256(path: Path) -> str:
    facts = path.stat()
    return _hash_once(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _hash_once(path: Path, size: int, changed: int) -> str:
    return files.sha256(path)


def _mismatch(remote: Remote, pin: Pin | None, path: Path) -> str:
    """Return in which way a file is not the one that it should be; nothing if it is."""
    digest = _sha256(path)
    for expected in (remote.sha256, pin.sha256 if pin else None):
        if expected is not None and digest != expected.lower():
            return f"its sha256 is {digest}, not {printable(expected, 70)}"
    if remote.md5 is not None and pin is None:
        with open(path, "rb") as stream:
            found = hashlib.file_digest(
                stream, functools.partial(hashlib.md5, usedforsecurity=False)
            )
        if found.hexdigest() != remote.md5:
            return f"its md5 is {found.hexdigest()}, not {remote.md5}"
    return ""


def _set_aside(path: Path) -> Path:
    bad = path.with_suffix(".bad")
    if path.exists():
        files.delete(bad)
        files.rename_path(path, bad)
    return bad


def _how_to_accept(remote: Remote, lock_file: Path) -> str:
    if remote.sha256 is not None:
        return "change sha256 in the recipe and delete the entry in data.lock"
    if remote.md5 is not None:
        return "update sacrebleu, whose table says what it is"
    return f"delete its entry in {lock_file}, or use mt data get --update"


# ---------------------------------------------------------------------------------- tries


def _download(remote: Remote, path: Path) -> None:
    """Fetch a file, in as many tries as it takes; it appears when it is whole."""
    if is_offline():
        what = f"not fetched, because MT_OFFLINE is set; it would lie at {path}"
        raise DownloadError("OFFLINE", remote.url, what, "unset MT_OFFLINE, or copy the file there")
    url, mirrored = (remote.url, False) if remote.private else addresses.through_mirror(remote.url)
    partial = path.with_suffix(".part")
    print_line(f"fetching {remote.url}" + (f" from {url}" if mirrored else ""))
    with _client() as client, _progress_bar(remote.url) as progress:
        tries = count = 0
        while True:
            before = _size(partial)
            try:
                _fetch_rest(client, url, remote, mirrored, partial, progress)
                break
            except _TryAgainError as error:
                count += 1
                tries = 1 if _size(partial) > before else tries + 1
                if tries >= MAX_TRIES or count >= MAX_ALL_TRIES:
                    what = f"{error.what}, after {count} tries"
                    raise DownloadError("DOWNLOAD", remote.url, what, _ADVICE) from None
                wait = error.seconds
                if wait is None:  # twice as long each time, and never the same for many clients
                    wait = min(60.0, 2.0**tries) * random.uniform(0.5, 1.0)
                print_line(f"{remote.url}: {error.what}; the next try is in {wait:.0f} s")
                sleep(wait)
    try:
        _refuse_page(remote.url, partial)
    except DownloadError:
        files.delete(partial)
        raise
    with files.os_errors_as_mt_errors(path):
        files.sync(partial)
    files.rename_path(partial, path)


def _client() -> Client:
    import httpx2

    return httpx2.Client(
        timeout=httpx2.Timeout(STALL_SECONDS, connect=_CONNECT_SECONDS),
        headers={"User-Agent": "mt", "Accept": "*/*", "Accept-Encoding": "identity"},
        # A connection is of the host name that its certificate was checked for.
        limits=httpx2.Limits(max_keepalive_connections=0),
    )


def _fetch_rest(
    client: Client, url: str, remote: Remote, mirrored: bool, partial: Path, progress: Progress
) -> None:
    """Fetch what is missing of a partial file."""
    import httpx2

    same = _read_text(partial.with_suffix(".etag"))
    kept = _size(partial) if same else 0
    headers = {"Range": f"bytes={kept}-", "If-Range": same} if kept else {}
    try:
        with _open(client, url, headers, remote.private or mirrored, remote.url) as response:
            if response.status_code == 200:
                kept, total = 0, _content_length(response)
                files.write_file(partial.with_suffix(".etag"), _validator(response))
            elif _ends_at(response, kept):
                return  # the last try ended before the file got its name
            elif response.status_code in (206, 416):
                total = _size_of_rest(response, kept, same)
                if total is None:
                    files.delete(partial)
                    raise _TryAgainError("the server sends another part than asked for")
            else:
                raise _status_error(response, remote.url)
            _append(response, partial, kept, total, remote, progress)
    except httpx2.TransportError as error:
        what = str(error) or type(error).__name__
        raise _TryAgainError(printable(what, 150)) from None
    except addresses.UnknownHostError as error:
        raise _TryAgainError(printable(error, 150)) from None


def _content_length(response: Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


def _ends_at(response: Response, kept: int) -> bool:
    """Whether a response says that the file has these bytes and no more."""
    return (
        response.status_code == 416 and response.headers.get("content-range") == f"bytes */{kept}"
    )


def _size_of_rest(response: Response, kept: int, same: str) -> int | None:
    """Return the size of the file of which a response has what follows the first `kept` bytes.

    None: the response has another part, or is of another file.
    """
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
    if match is None or int(match[1]) != kept or _validator(response) not in ("", same):
        return None
    return int(match[2])


def _validator(response: Response) -> str:
    """Return what names the version of a file for If-Range; nothing if the server has no such."""
    etag = str(response.headers.get("etag", ""))
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag):  # a weak one (W/) may not be used
        return etag
    return str(response.headers.get("last-modified", ""))[:100]


def _append(
    response: Response, partial: Path, kept: int, total: int | None, remote: Remote,
    progress: Progress,
) -> None:  # fmt: skip
    """Write the body of a response after the first `kept` bytes of a file of `total`."""
    done, since, then = kept, kept, monotonic()
    _check_size(remote, total or 0, partial)
    with files.os_errors_as_mt_errors(partial), files.open_partial(partial, kept) as out:
        for block in response.iter_raw():
            out.write(block)
            done += len(block)
            _check_size(remote, done, partial)
            progress(done, total)
            now = monotonic()
            if now - then >= STALL_SECONDS:
                if done - since < MIN_RATE * STALL_SECONDS:
                    raise _TryAgainError(f"fewer than {MIN_RATE} bytes a second come")
                since, then = done, now
    if total is not None and done != total:
        raise _TryAgainError(f"{done} of {total} bytes came")


def _check_size(remote: Remote, size: int, partial: Path) -> None:
    if size > remote.most_bytes:
        files.delete(partial)
        what = f"more than {remote.most_bytes / 1e6:,.0f} MB, the most that is fetched of it"
        raise DownloadError("URL-SIZE", remote.url, what, "fetch it yourself, and name the file")


def _status_error(response: Response, url: str) -> Exception:
    """Return the error of an answer that is no file."""
    status = response.status_code
    what = f"the server answers {status} {printable(response.reason_phrase, 40)}".rstrip()
    if status in _AGAIN:
        after = str(response.headers.get("retry-after", ""))
        seconds = min(float(after), MAX_WAIT) if re.fullmatch(r"\d{1,9}", after) else None
        return _TryAgainError(what, seconds)
    advice = "see whether the URL still exists, in a browser"
    if status in (401, 403, 407):
        advice = "it is not public: fetch it in a browser, and name the file in the recipe"
    return DownloadError("DOWNLOAD", url, what, advice)


def _refuse_page(url: str, path: Path) -> None:
    """Raise a DownloadError when a file is a page of HTML, such as one to log in."""
    with open(path, "rb") as stream:
        head = stream.read(1000)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<") and (b"<!doctype html" in start or b"<html" in start):
        what = f"a web page, not a file: {printable(head.decode('utf-8', 'replace'), 80)}"
        advice = "perhaps one must log in or agree there: fetch it in a browser, and name the file"
        raise DownloadError("NOT-DATA", url, what, advice)


# ---------------------------------------------------------------------------- connections


@contextlib.contextmanager
def _open(
    client: Client, url: str, headers: dict[str, str], private: bool, name: str
) -> Iterator[Response]:
    """Open a URL and follow its redirects, each of which must be allowed."""
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        where = name if at == url else f"{name} -> {at}"
        response = _send(client, at, headers, private, where)
        with contextlib.closing(response):
            location = response.headers.get("location", "")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                yield response
                return
        at = _redirected(at, location, private, name)
    what, advice = f"more than {MAX_REDIRECTS} redirects, the last to {at}", "see the URL"
    raise DownloadError("URL-REDIRECT", name, what, advice)


def _redirected(at: str, location: str, private: bool, name: str) -> str:
    import httpx2

    where = f"{name} -> {location}"
    try:
        new = str(httpx2.URL(at).join(location))
    except httpx2.InvalidURL as error:
        what = f"a redirect to no URL ({error})"
        raise DownloadError("URL-REDIRECT", where, what, "see the URL") from None
    parsed = addresses.parse_url(new, private, where)
    if parsed.scheme == "http" and at.startswith("https:"):
        what = "a redirect from https to http"
        raise DownloadError("URL-SCHEME", where, what, "fetch it yourself, and name the file")
    return new


def _send(client: Client, url: str, headers: dict[str, str], private: bool, where: str) -> Response:
    """Send a request to the checked address of a host; the certificate must be of its name."""
    import httpx2

    parsed = addresses.parse_url(url, private, where)
    host = parsed.raw_host.decode("ascii")
    failed: Exception = addresses.UnknownHostError(host)
    for address in addresses.public_addresses(parsed, private, where):
        client.cookies.clear()
        request = client.build_request(
            "GET", parsed.copy_with(host=address, fragment=None),
            headers={**headers, "Host": parsed.netloc.decode("ascii")},
            extensions={"sni_hostname": host},
        )  # fmt: skip
        try:
            return client.send(request, stream=True, follow_redirects=False)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            failed = error
    raise failed


@contextlib.contextmanager
def _progress_bar(name: str) -> Iterator[Progress]:
    """Show a bar on standard error if that is a terminal."""
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.fields[line]}", markup=False),
        progress.BarColumn(bar_width=20), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None, line=printable(name.rpartition("/")[2], 40))
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
