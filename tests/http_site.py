"""A web server on 127.0.0.1 whose answers a test chooses."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ETAG = '"1"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        times = sum(path == self.path for path, _ in site.requests)
        site.requests.append((self.path, dict(self.headers)))
        answer = site.answers.get(self.path)
        if answer is None:
            send(self, 404, b"")
        elif isinstance(answer, bytes):
            send_file(self, answer)
        else:
            answer(self, times)

    def log_message(self, *arguments):
        pass


def send(handler: Handler, status: int, body: bytes, length: int | None = None, **headers) -> None:
    """Send an answer; `length` is what it claims. The connection is closed after it."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def send_file(handler: Handler, content: bytes, etag: str = ETAG, end: int | None = None) -> None:
    """Send a file, or the range that is asked for, up to byte `end`: as if cut there."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if match and handler.headers.get("If-Range") == etag:
        start = int(match[1])
        if start >= len(content):
            send(handler, 416, b"no such range", Content_Range=f"bytes */{len(content)}")
            return
        rest = content[start:]
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = rest if end is None else rest[: max(0, end - start)]
        send(handler, 206, body, len(rest), ETag=etag, Content_Range=place)
    else:
        send(handler, 200, content if end is None else content[:end], len(content), ETag=etag)


def cut_at(
    content: bytes, end: int, then: Callable[..., None] | None = None
) -> Callable[..., None]:
    """Answer the first request with the beginning, later ones with the file or by `then`."""

    def answer(handler: Handler, times: int) -> None:
        if times == 0:
            send_file(handler, content, end=end)
        elif then is None:
            send_file(handler, content)
        else:
            then(handler, times)

    return answer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing of a client that goes away."""


class Site:
    """What the server answers, by path, and what it was asked for."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.answers: dict[str, Any] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def url(self, path: str) -> str:
        return self.root + path

    def mirror(self, url: str, content: Any) -> str:
        """Serve the content of an https URL where `$MT_MIRROR` has it; return the URL."""
        self.answers["/" + url.removeprefix("https://")] = content
        return url


@contextlib.contextmanager
def open_site(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Start a server, over TLS if there is a certificate; it ends with the context."""
    server: Any = Server(("127.0.0.1", 0), Handler)
    server.site = Site(server.server_port)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
