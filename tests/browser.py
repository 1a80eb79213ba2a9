"""Chromium without a window, driven by its own protocol over pipes: no package, no network."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path

PATIENCE = 120
"""Seconds after which a browser that says nothing counts as dead."""


def found() -> str | None:
    """Where a Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One page of a browser; what it does is waited for, never slept for."""

    def __init__(self, profile: Path) -> None:
        down, self.write = os.pipe()
        self.read, up = os.pipe()
        # The browser reads its commands from descriptor 3 and answers on 4.
        command = (
            f'exec "$0" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage '
            f"--no-first-run --user-data-dir={profile} --remote-debugging-pipe "
            f"about:blank 3<&{down} 4>&{up}"
        )
        self.child = subprocess.Popen(
            ["bash", "-c", command, str(found())], pass_fds=(down, up),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(down)
        os.close(up)
        self.numbers, self.rest = itertools.count(1), b""
        self.events: list[dict] = []
        self.session = None
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **parameters: object) -> dict:
        """What a command answers."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _message(self) -> dict:
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], PATIENCE)[0], "the browser is silent"
            part = os.read(self.read, 1 << 16)
            assert part, "the browser has gone"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def look(self, width: int, height: int, scheme: str = "light", scale: float = 1) -> None:
        """Be so large, and of that colour scheme."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height,
                deviceScaleFactor=scale, mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.do("Emulation.setEmulatedMedia", features=features)

    def scripts(self, allowed: bool) -> None:
        """Allow or forbid the scripts of pages."""
        self.do("Emulation.setScriptExecutionDisabled", value=not allowed)

    def first_paint(self) -> float:
        """Milliseconds from the navigation to the first contents on the screen."""
        entries = "performance.getEntriesByName('first-contentful-paint')"
        frame = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
        for _ in range(100):  # the entry follows some frames after the load
            if self.value(f"{frame}.then(() => {entries}.length)"):
                return float(str(self.value(f"{entries}[0].startTime")))
        raise AssertionError("nothing is painted")

    def open(self, path: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.events.clear()
        went = self.do("Page.navigate", url=path.as_uri())
        assert "errorText" not in went, went
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def value(self, expression: str) -> object:
        """The value of a JavaScript expression."""
        result = self.do(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def key(self, name: str) -> None:
        """Press a key."""
        typed = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
        text = {"text": typed} if typed else {}
        self.do("Input.dispatchKeyEvent", type="keyDown", key=name, **text)
        self.do("Input.dispatchKeyEvent", type="keyUp", key=name)

    def move(self, x: float, y: float) -> None:
        """Point there."""
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.value(f"{frame}.then(() => 0)")  # what moves is told a frame at a time

    def picture(self, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        return base64.b64decode(
            self.do("Page.captureScreenshot", captureBeyondViewport=whole, format="png")["data"]
        )

    def wrong(self) -> list[str]:
        """What the page asked for besides itself, and what its console says."""
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        said = [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]
        return asked[1:] + said

    def close(self) -> None:
        """End it."""
        self.session = None
        self.do("Browser.close")
        self.child.wait(PATIENCE)
        os.close(self.write)
        os.close(self.read)
