"""A file of the web is in the cache whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from http_site import ETAG, cut_at, open_site, send, send_file

from mt.data import data_lock, download
from mt.data.download import Remote, cache_path, fetch
from mt.errors import DownloadError, MachineError

ROOT = Path(__file__).parents[2]
TEXT = bytes(random.Random(1).randbytes(300_000))
URL = "https://data.example/corpus.bin"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Where `data.lock` is; nothing is in the cache."""
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data.lock"


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited for the next try, in no time."""
    found = []
    monkeypatch.setattr(download, "sleep", found.append)
    return found


def refused(remote, record, **options):
    with pytest.raises(DownloadError) as error:
        fetch(remote, record, **options)
    assert error.value.exit_code == 7
    assert len(str(error.value).splitlines()) == 2
    assert not cache_path(remote.url).exists()
    return error.value


# ------------------------------------------------------------------------- complete files


def test_a_file_is_fetched_once_and_recorded(site, record):
    site.mirror(URL, TEXT)
    first = fetch(Remote(URL), record)
    assert first.path.read_bytes() == TEXT
    assert json.loads(record.read_text()) == {
        URL: {"bytes": len(TEXT), "revision": ETAG, "sha256": sha256(TEXT)}
    }
    assert fetch(Remote(URL), record) == first
    assert len(site.requests) == 1


def test_a_file_that_is_there_needs_no_network(site, record, monkeypatch):
    site.mirror(URL, TEXT)
    first = fetch(Remote(URL), record)
    monkeypatch.setenv("MT_OFFLINE", "1")
    assert fetch(Remote(URL), record) == first


def test_offline_nothing_is_fetched_and_the_error_says_where_it_would_lie(
    site, record, monkeypatch
):
    monkeypatch.setenv("MT_OFFLINE", "1")
    error = refused(Remote(URL), record)
    assert error.code == "OFFLINE"
    assert str(cache_path(URL)) in str(error)
    assert URL in str(error)
    assert site.requests == []


def test_wrong_bytes_of_the_right_size_are_set_aside_and_not_used(site, record):
    site.mirror(URL, TEXT)
    fetch(Remote(URL), record)
    cache_path(URL).unlink()
    wrong = bytes([TEXT[0] ^ 1]) + TEXT[1:]
    site.mirror(URL, wrong)
    error = refused(Remote(URL), record)
    assert error.code == "SHA256"
    assert sha256(TEXT) in str(error)
    assert sha256(wrong) in str(error)
    assert "--update" in str(error)
    assert cache_path(URL).with_suffix(".bad").read_bytes() == wrong
    assert fetch(Remote(URL), record, update=True).sha256 == sha256(wrong)
    assert data_lock.find_pin(record, URL).sha256 == sha256(wrong)


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(site, record):
    site.mirror(URL, TEXT)
    fetch(Remote(URL), record)
    cache_path(URL).write_bytes(TEXT[:-1] + b"?")
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert len(site.requests) == 2


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_hash_that_is_known_before_is_verified(site, record, known):
    site.mirror(URL, TEXT)
    assert refused(Remote(URL, **known), record).code == "SHA256"
    assert not record.exists()
    good = {"sha256": sha256(TEXT), "md5": hashlib.md5(TEXT).hexdigest()}
    assert fetch(Remote(URL, **{key: good[key] for key in known}), record).path.is_file()


# --------------------------------------------------------------------------------- resume


def test_a_cut_file_is_resumed_where_it_ended(site, record, waits):
    site.mirror(URL, cut_at(TEXT, 150_000))
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    (_, first), (_, second) = site.requests
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == ("bytes=150000-", ETAG)
    assert len(waits) == 1


def test_a_server_without_ranges_sends_it_all_again_and_no_byte_is_doubled(site, record, waits):
    def whole(handler, times):
        send(handler, 200, TEXT, ETag=ETAG)

    site.mirror(URL, cut_at(TEXT, 150_000, whole))
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT


def test_a_file_that_changed_between_two_tries_is_fetched_from_its_beginning(site, record, waits):
    new = TEXT[::-1]
    site.mirror(URL, cut_at(TEXT, 150_000, lambda handler, _: send_file(handler, new, '"2"')))
    assert fetch(Remote(URL), record).path.read_bytes() == new


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": "bytes 7-299999/300000"}, {"Content_Range": "nonsense"}, {},
        {"Content_Range": "bytes 150000-299999/300000", "ETag": '"2"'},
    ],
)  # fmt: skip
def test_another_part_than_asked_for_is_not_appended(site, record, waits, headers):
    def wrong_part(handler, times):
        if times == 1:
            send(handler, 206, TEXT[7:], **headers)
        else:
            send_file(handler, TEXT)

    site.mirror(URL, cut_at(TEXT, 150_000, wrong_part))
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert "Range" not in site.requests[2][1]


@pytest.mark.parametrize(("size", "asked"), [(len(TEXT), 1), (len(TEXT) + 5, 2)])
def test_a_file_that_only_lacks_its_name_is_not_fetched_again(site, record, waits, size, asked):
    site.mirror(URL, TEXT)
    path = cache_path(URL)
    path.parent.mkdir(parents=True)
    path.with_suffix(".part").write_bytes((TEXT + b"?????")[:size])
    path.with_suffix(".etag").write_text(ETAG)
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert len(site.requests) == asked


def test_a_weak_name_of_a_version_resumes_nothing(site, record, waits):
    def weak(handler, times):
        send(handler, 200, TEXT[: -1 if times == 0 else None], len(TEXT), ETag='W/"1"')

    site.mirror(URL, weak)
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert "Range" not in site.requests[1][1]


KILLED = """
import os, signal, sys
from pathlib import Path
from mt.data import download
at, done = int(sys.argv[3]), 0
open_partial = download.files.open_partial
class Stream:
    def __init__(self, stream):
        self.stream = stream
    def __enter__(self):
        return self
    def __exit__(self, *why):
        self.stream.close()
    def write(self, block):
        self.stream.write(block)
        self.stream.flush()
        if self.stream.tell() >= at:
            os.kill(os.getpid(), signal.SIGKILL)
download.files.open_partial = lambda path, kept: Stream(open_partial(path, kept))
download.fetch(download.Remote(sys.argv[1]), Path(sys.argv[2]))
"""


def killed_at(record, place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, URL, str(record), str(place)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode


def test_after_a_kill_the_next_run_goes_on(site, record):
    site.mirror(URL, TEXT)
    for place in (1, 100_000, 200_000):
        assert killed_at(record, place) == -signal.SIGKILL
        assert not cache_path(URL).exists()
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert int(site.requests[-1][1]["Range"][6:-1]) >= 200_000


@pytest.mark.torture
def test_after_any_kill_the_next_run_goes_on(site, record, seed):
    site.mirror(URL, TEXT)
    draw = random.Random(seed)
    for _ in range(100):
        for place in sorted(draw.sample(range(1, len(TEXT)), 2)):
            code = killed_at(record, place)  # 0: the first kill came after the last byte
            assert code in (-signal.SIGKILL, 0)
            assert cache_path(URL).exists() == (code == 0)
        assert fetch(Remote(URL), record).path.read_bytes() == TEXT
        cache_path(URL).unlink()


def test_several_at_once_fetch_it_once(site, record):
    site.mirror(URL, TEXT)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(Remote(URL), record).sha256))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [sha256(TEXT)] * 4
    assert len(site.requests) == 1


# ---------------------------------------------------------------------------------- tries


def test_a_failing_server_is_asked_again_later_and_later(site, record, waits):
    def flaky(handler, times):
        send(handler, 500, b"") if times < 3 else send_file(handler, TEXT)

    site.mirror(URL, flaky)
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(waits, start=1))
    assert len(waits) == 3


@pytest.mark.parametrize(("after", "seconds"), [("7", 7), ("100000", download.MAX_WAIT)])
def test_a_server_may_ask_to_wait_but_not_for_ever(site, record, waits, after, seconds):
    def busy(handler, times):
        send(handler, 429, b"", Retry_After=after) if not times else send_file(handler, TEXT)

    site.mirror(URL, busy)
    fetch(Remote(URL), record)
    assert waits == [seconds]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_is_not_to_be_had_is_asked_for_once(site, record, waits, status):
    site.mirror(URL, lambda handler, _: send(handler, status, b"Sorry"))
    error = refused(Remote(URL), record)
    assert f"{status}" in str(error)
    assert URL in str(error)
    assert (len(site.requests), waits) == (1, [])


def test_a_server_that_always_fails_is_given_up(site, record, waits):
    site.mirror(URL, lambda handler, _: send(handler, 503, b""))
    assert "503" in str(refused(Remote(URL), record))
    assert len(site.requests) == download.MAX_TRIES


def test_a_host_that_nobody_knows_is_exit_7(site, record, waits, monkeypatch):
    monkeypatch.delenv("MT_MIRROR")

    def unknown(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in str(refused(Remote(URL), record))


def test_a_server_that_stalls_is_left_and_asked_again(site, record, waits, monkeypatch):
    released = threading.Event()

    def stalling(handler, times):
        if times == 0:
            send(handler, 200, TEXT[:1000], len(TEXT), ETag=ETAG)
            handler.wfile.flush()
            handler.close_connection = False
            released.wait(20)
        else:
            released.set()
            send_file(handler, TEXT)

    monkeypatch.setattr(download, "STALL_SECONDS", 0.2)
    site.mirror(URL, stalling)
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert len(site.requests) >= 2


def test_a_server_that_sends_a_byte_a_second_is_left(record, waits, monkeypatch):
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(download, "monotonic", lambda: next(clock))
    asked = []

    def handler(request):
        asked.append(request)
        slow = [TEXT[:1], TEXT[1:2], TEXT[2:3], TEXT[3:]] if len(asked) == 1 else [TEXT]
        return httpx2.Response(200, content=iter(slow))

    answers(monkeypatch, {"data.example": ["93.184.216.34"]}, handler)
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert len(asked) == 2


def test_a_server_may_send_less_than_the_rest(site, record, waits):
    def piece(handler, times):
        start = int(handler.headers["Range"][6:-1])
        body = TEXT[start : start + 60_000]
        place = f"bytes {start}-{start + len(body) - 1}/{len(TEXT)}"
        send(handler, 206, body, Content_Range=place)

    site.mirror(URL, cut_at(TEXT, 100_000, piece))
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert len(site.requests) == 5


def test_a_redirect_may_be_relative_and_leads_not_from_https_to_http(site, record, monkeypatch):
    site.mirror(URL, lambda handler, _: send(handler, 302, b"", Location="../b?c=d"))
    site.answers["/b?c=d"] = TEXT
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT

    def handler(request):
        return httpx2.Response(301, headers={"Location": "http://data.example/b"})

    answers(monkeypatch, {"data.example": ["10.0.0.1"]}, handler)
    assert refused(Remote(URL + "2", private=True), record).code == "URL-SCHEME"


def test_an_endless_body_without_a_length_stops_at_the_cap(site, record, monkeypatch):
    sent = []

    def endless(handler, times):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(1000):
            sent.append(1)
            handler.wfile.write(b"\0" * 65536)

    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    site.mirror(URL, endless)
    assert refused(Remote(URL), record).code == "URL-SIZE"
    assert not cache_path(URL).with_suffix(".part").exists()
    assert len(sent) < 1000
    # A size that the catalogue knows is a cap, too, and a claim of the server is believed.
    site.mirror(URL, lambda handler, _: send(handler, 200, b"x", 10**9))
    assert refused(Remote(URL, bytes=1000), record).code == "URL-SIZE"


def test_a_full_disk_is_exit_5_and_the_rest_is_fetched_later(site, record, monkeypatch):
    site.mirror(URL, TEXT)

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *why):
            self.stream.close()

        def write(self, block):
            if self.stream.tell() > 100_000:
                raise OSError(28, "No space left on device")
            self.stream.write(block)

    open_partial = download.files.open_partial
    with monkeypatch.context() as patch:
        patch.setattr(download.files, "open_partial", lambda *a: Full(open_partial(*a)))
        with pytest.raises(MachineError) as error:
            fetch(Remote(URL), record)
    assert (error.value.code, error.value.exit_code) == ("DISK-FULL", 5)
    assert not cache_path(URL).exists()
    assert fetch(Remote(URL), record).path.read_bytes() == TEXT
    assert "Range" in site.requests[1][1]


def test_a_folder_that_cannot_be_written_is_a_warning(site, tmp_path, capsys, monkeypatch):
    from mt.runtime import console

    monkeypatch.setattr(console, "_warned", set())
    site.mirror(URL, TEXT)
    assert fetch(Remote(URL), tmp_path / "no such folder" / "data.lock").sha256 == sha256(TEXT)
    assert "warning[LOCK]" in capsys.readouterr().err


# -------------------------------------------------------------------------- where it goes


@pytest.mark.parametrize(
    "url", ["http://data.example/a", "ftp://data.example/a", "file:///etc/passwd", "/etc/passwd"]
)
def test_only_https_is_fetched(site, record, url):
    assert refused(Remote(url), record).code == "URL-SCHEME"
    assert site.requests == []


def test_a_password_in_a_url_is_refused_and_not_shown(site, record):
    error = refused(Remote("https://user:Pass1234word@data.example/a"), record)
    assert error.code == "URL-SECRET"
    assert "Pass1234word" not in str(error)


def answers(monkeypatch, addresses, handler):
    """Let each host have these addresses, and `handler` answer the requests to them."""
    monkeypatch.delenv("MT_MIRROR", raising=False)
    looked_up = []

    def look_up(host, port, **options):
        looked_up.append(host)
        found = addresses[host].pop(0) if len(addresses[host]) > 1 else addresses[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    client = download._client

    def own_client():
        made = client()
        return httpx2.Client(transport=httpx2.MockTransport(handler), headers=made.headers)

    monkeypatch.setattr(download, "_client", own_client)
    return looked_up


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fc00::1", "fe80::1",
        "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1",
        "ff02::1",
    ],
)  # fmt: skip
def test_no_private_address_is_connected_to(record, monkeypatch, address):
    asked = []
    answers(monkeypatch, {"data.example": [address]}, asked.append)
    error = refused(Remote(URL), record)
    assert error.code == "URL-PRIVATE"
    assert "data.example" in str(error)
    assert asked == []


def test_a_private_address_in_the_url_is_refused_too(site, record, monkeypatch):
    monkeypatch.delenv("MT_MIRROR")
    url = site.url("/a").replace("http:", "https:")
    assert refused(Remote(url), record).code == "URL-PRIVATE"
    assert fetch_private(site, record).read_bytes() == TEXT


def fetch_private(site, record):
    site.answers["/a"] = TEXT
    return fetch(Remote(site.url("/a"), private=True), record).path


def test_the_address_that_was_checked_is_the_one_connected_to(site, record, monkeypatch):
    """A name server that first gives a public address, then one of this machine."""
    asked = []

    def handler(request):
        asked.append((request.url.host, request.headers["host"], request.extensions))
        return httpx2.Response(200, content=iter([TEXT]))

    looked_up = answers(monkeypatch, {"data.example": ["93.184.216.34", "127.0.0.1"]}, handler)
    fetch(Remote(URL), record)
    assert looked_up == ["data.example"]
    ((host, name, extensions),) = asked
    assert (host, name) == ("93.184.216.34", "data.example")
    assert extensions["sni_hostname"] == "data.example"


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("https://inside.example/a", "URL-PRIVATE"), ("https://127.0.0.1/a", "URL-PRIVATE"),
        ("http://data.example/a", "URL-SCHEME"), ("file:///etc/passwd", "URL-SCHEME"),
        ("ftp://data.example/a", "URL-SCHEME"),
        ("https://u:Pass1234word@data.example", "URL-SECRET"),
        ("https://data.example/corpus.bin", "URL-REDIRECT"),
    ],
)  # fmt: skip
def test_a_redirect_must_be_allowed_as_the_url_is(record, monkeypatch, to, code):
    def handler(request):
        return httpx2.Response(302, headers={"Location": to})

    public = {"data.example": ["93.184.216.34"], "inside.example": ["10.0.0.1"]}
    answers(monkeypatch, {**public, "127.0.0.1": ["127.0.0.1"]}, handler)
    error = refused(Remote(URL), record)
    assert error.code == code
    assert URL in str(error)
    assert "Pass1234word" not in str(error)


def test_a_redirect_to_another_host_gets_no_cookie_and_no_header_of_the_first(record, monkeypatch):
    asked = []

    def handler(request):
        asked.append(dict(request.headers))
        if request.headers["host"] == "data.example":
            headers = {"Location": "https://other.example/a", "Set-Cookie": "session=1; Path=/"}
            return httpx2.Response(302, headers=headers)
        return httpx2.Response(200, content=iter([TEXT]))

    monkeypatch.setenv("HF_TOKEN", "hf_planted0123456789")
    public = {"data.example": ["93.184.216.34"], "other.example": ["93.184.216.34"]}
    answers(monkeypatch, public, handler)
    fetch(Remote(URL), record)
    assert [headers["host"] for headers in asked] == ["data.example", "other.example"]
    for headers in asked:
        assert headers.keys() <= {"host", "accept", "accept-encoding", "connection", "user-agent"}


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..\\x"])
def test_no_server_and_no_url_names_a_file(site, record, tmp_path, name):
    url = "https://data.example/a/..%2f..%2fx?file=" + name
    site.mirror(
        url, lambda handler, _: send(
            handler, 200, TEXT, Content_Disposition=f'attachment; filename="{name}"'
        ),
    )  # fmt: skip
    path = fetch(Remote(url), record).path
    assert path.parent == tmp_path / "cache" / "downloads"
    assert set(path.name) <= set("0123456789abcdef")
    assert {each.name for each in tmp_path.iterdir()} == {"cache", "data.lock"}


@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html>\n<title>Log in</title>", b"\xef\xbb\xbf \n<HTML><body>Log in",
     b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C"><html>Log in'],
)  # fmt: skip
def test_a_page_in_place_of_a_file_is_refused_and_shown(site, record, page):
    site.mirror(URL, lambda handler, _: send(handler, 200, page))
    error = refused(Remote(URL), record)
    assert error.code == "NOT-DATA"
    assert "html" in str(error).lower()
    assert not cache_path(URL).with_suffix(".part").exists()


def test_no_secret_is_shown_or_recorded(site, record, monkeypatch, tmp_path, capsys, waits):
    token = "planted0123456789"
    monkeypatch.setenv("MY_TOKEN", token)
    url = f"https://data.example/a.zip?X-Amz-Signature={token}&part=2&token=another0123456789"
    site.mirror(url, lambda handler, times: send(handler, 200 if times else 500, TEXT))
    fetch(Remote(url), record)
    secret = url.replace("a.zip", "b.zip")
    site.mirror(secret, lambda handler, _: send(handler, 403, b""))
    error = str(refused(Remote(secret), record))
    shown = error + capsys.readouterr().err + record.read_text()
    for path in (tmp_path / "cache").rglob("*"):
        shown += path.name + (path.read_text(errors="replace") if path.is_file() else "")
    assert "data.example" in shown
    assert token not in shown
    assert "another0123456789" not in shown


# ------------------------------------------------------------------------------------ TLS


@pytest.fixture
def secure_site(tmp_path, monkeypatch):
    """A server with a certificate of data.example; every host has the address of this machine."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=data.example",
         "-addext", "subjectAltName=DNS:data.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: look_up("127.0.0.1", *more, **named)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with open_site(context) as site:
        yield site


@pytest.mark.parametrize("host", ["data.example", "other.example"])
def test_the_certificate_must_be_of_the_name(site, secure_site, record, monkeypatch, waits, host):
    monkeypatch.delenv("MT_MIRROR")
    secure_site.answers["/a"] = TEXT
    port = secure_site.root.rpartition(":")[2]
    remote = Remote(f"https://{host}:{port}/a", private=True)
    if host == "data.example":
        assert fetch(remote, record).path.read_bytes() == TEXT
    else:
        assert "certificate" in str(refused(remote, record)).lower()
        assert secure_site.requests == []
