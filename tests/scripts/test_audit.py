"""The audit reports what pip-audit finds, and says visibly when it has looked for nothing."""

from __future__ import annotations

import http.server
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import audit


class Answer(http.server.BaseHTTPRequestHandler):
    """A database that answers."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def database(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_without_a_database_a_notice_is_printed(capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert audit.audit("http://127.0.0.1:9/", ["false"]) == 0
    assert "NOT AUDITED: http://127.0.0.1:9/ cannot be read (" in capsys.readouterr().out


def test_without_pip_audit_a_notice_is_printed(database, capsys, monkeypatch):
    monkeypatch.setattr(audit, "install", lambda folder: None)
    assert audit.audit(database) == 0
    assert "NOT AUDITED: pip-audit cannot be installed" in capsys.readouterr().out


SOUND = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}
PROGRAM = """
import json, pathlib, sys
*_, output, _, constraints = sys.argv[1:]
assert constraints.endswith("constraints.txt")
packages, code = {packages!r}, {code}
if packages:
    pathlib.Path(output).write_text(json.dumps({{"dependencies": packages}}))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("packages", "code", "ended", "told"),
    [
        ([SOUND], 0, 0, "1 of 1 packages audited"),
        ([SOUND, FAULTY], 1, 1, "b 2: CVE-1, mended in 3"),
        ([SOUND, UNKNOWN], 0, 0, "NOT AUDITED, as the database does not know them: c"),
        ([UNKNOWN], 0, 0, "NOT AUDITED: the database knows none of the packages"),
        ([], 0, 1, ""),
        ([], 2, 2, ""),
    ],
)
def test_what_pip_audit_finds_is_reported(database, capfd, packages, code, ended, told):
    program = PROGRAM.format(packages=packages, code=code)
    assert audit.audit(database, [sys.executable, "-c", program]) == ended
    assert told in capfd.readouterr().out


def test_every_constraint_is_one_version():
    for line in audit.CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or line.count("==") == 1, line
