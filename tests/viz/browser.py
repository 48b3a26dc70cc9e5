"""Drives Debian's chromium without a window, over two pipes: no library, no port, no network."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np

PROGRAM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
OPTIONS = [
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars",
    "--force-color-profile=srgb",
]  # fmt: skip
PATIENCE = 10.0  # seconds


class Browser:
    """One chromium with one page; `console`, `requests` hold what it said and asked for."""

    def __init__(self, folder: Path):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def wire():  # chromium reads from 3 and writes to 4
            a, b = os.dup(to_read), os.dup(to_write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [str(PROGRAM), *OPTIONS, f"--user-data-dir={folder}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=wire, pass_fds=(3, 4),
            env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._rest, self._number, self.session = b"", 0, None
        self.console: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        try:
            self.session = None
            self.send("Browser.close")
            self.process.wait(10)
        except (OSError, EOFError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self._read)
        os.close(self._write)

    # The protocol.

    def send(self, method: str, **params) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
        raise AssertionError(f"{method}: no answer within {PATIENCE:g} s")

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            if not ready:
                raise AssertionError(f"chromium said nothing for {PATIENCE:g} s")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise EOFError("chromium has ended")
            self._rest += piece
        message, self._rest = self._rest.split(b"\0", 1)
        found = json.loads(message)
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, method: str | None, said: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(said["args"]))
        elif method == "Log.entryAdded":
            self.console.append(said["entry"]["text"])
        elif method == "Page.loadEventFired":
            self.loaded = True

    # What a reader does.

    def open(
        self,
        path: Path,
        width: int = 1280,
        height: int = 900,
        scripts: bool = True,
        stands: str = "#sheet.live",
        fragment: str = "",
        **media: str,
    ) -> float:
        """Load a file and return the seconds until it stands; media: prefers_color_scheme="dark" and the like.

        stands : what a script puts there when the picture stands.  fragment : of the address, from # on.
        """
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        self.send("Emulation.setEmulatedMedia", media="screen", features=features)
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.size(width, height)
        self.console.clear()
        self.requests.clear()
        self.loaded = False
        start = time.monotonic()
        if fragment:  # else only the fragment of the page that stands there would change
            self.send("Page.navigate", url="about:blank")
            self.requests.clear()
            self.loaded = False
        self.send("Page.navigate", url=path.as_uri() + fragment)
        while not self.loaded and time.monotonic() < start + PATIENCE:
            self._receive()
        if scripts:
            self.until(f"document.querySelector({json.dumps(stands)})")  # the picture is the script's
            self.run("new Promise(requestAnimationFrame)")
        return time.monotonic() - start

    def size(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def run(self, script: str):
        """The value of an expression in the page."""
        got = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.run(f"!!({script})")
            if found:
                return
            time.sleep(0.02)
        raise AssertionError(f"never true: {script}")

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of the first such element is on the screen."""
        found = self.run(
            f"(b => b && [b.x + b.width / 2, b.y + b.height / 2])"
            f"(document.querySelector({json.dumps(selector)})?.getBoundingClientRect())"
        )
        assert found, f"no {selector}"
        return tuple(found)

    def point(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        self.point(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.point(x, y)
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for share in (0.3, 0.6, 1):
            at = {"x": x + (to_x - x) * share, "y": y + (to_y - y) * share}
            self.send("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, **at)
        self.send(
            "Input.dispatchMouseEvent", type="mouseReleased", x=to_x, y=to_y, button="left", clickCount=1
        )

    def wheel(self, x: float, y: float, by: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=by)

    def press(self, key: str) -> None:
        """A key by its name, such as ArrowLeft or a."""
        more = {"text": key if len(key) == 1 else "\r"} if len(key) == 1 or key == "Enter" else {}
        codes = {
            "Tab": 9,
            "Enter": 13,
            "Escape": 27,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        codes |= {"Home": 36, "End": 35}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def photograph(self, path: Path | None = None, clip: tuple | None = None) -> np.ndarray:
        """The screen, or x, y, width, height of it, as an array (rows, columns, 3)."""
        given = {}
        if clip is not None:
            given["clip"] = dict(zip(("x", "y", "width", "height"), clip, strict=True)) | {"scale": 1}
        png = base64.b64decode(self.send("Page.captureScreenshot", format="png", **given)["data"])
        if path is not None:
            path.write_bytes(png)
        return pixels(png)


def pixels(png: bytes) -> np.ndarray:
    """A PNG of 8 bits a channel, as browsers write it: (rows, columns, 3)."""
    place, packed, channels, width = 8, b"", 3, 0
    while place < len(png):
        size, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        body = png[place + 8 : place + 8 + size]
        if kind == b"IHDR":
            width, channels = int.from_bytes(body[:4], "big"), {2: 3, 6: 4}[body[9]]
        packed += body * (kind == b"IDAT")
        place += size + 12
    data = zlib.decompress(packed)
    row = width * channels
    lines = np.frombuffer(data, np.uint8).reshape(-1, row + 1)
    above, found = np.zeros((width, channels), np.int64), []
    for line in lines:
        how, now = line[0], line[1:].reshape(width, channels).astype(np.int64)
        if how == 2:
            now = (now + above) % 256
        elif how == 1:
            now = np.cumsum(now, axis=0) % 256
        elif how:
            now = _predicted(how, now, above)
        found.append(now)
        above = now
    return np.array(found, np.uint8)[..., :3]


def _predicted(how: int, line: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The filters Average (3) and Paeth (4), which need what is on the left."""
    left, corner, found = np.zeros_like(line[0]), np.zeros_like(line[0]), np.empty_like(line)
    for k, (value, up) in enumerate(zip(line, above, strict=True)):
        guess = (left + up) // 2
        if how == 4:
            p = left + up - corner
            a, b, c = abs(p - left), abs(p - up), abs(p - corner)
            guess = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
        left, corner = (value + guess) % 256, up
        found[k] = left
    return found
