"""A real browser for tests: headless Chromium, spoken to over its DevTools pipe.

A window has a least width, whatever `--window-size` asks; the metrics of its device are what they are told to be. The
pipe (`--remote-debugging-pipe`) takes no port and no library: JSON, each message ended by a zero byte, in on file
descriptor 3 and out on 4.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)  # None: there is no Chromium on this machine
# No sandbox, as containers run as root; no /dev/shm, which is small in them; and nothing that Chromium does by itself.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run")
FLAGS += ("--hide-scrollbars", "--force-color-profile=srgb")  # a screenshot has the places and colours of the page
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe")
PATIENCE = 30  # seconds for an answer; starting takes about two on an idle core


KEYS = {"Enter": "\r", " ": " "}  # keys of more than a letter that write a character; the others write none
SHIFT, CONTROL = 8, 2  # bits of `modifiers`


class Browser:
    """One Chromium with one empty page."""

    session: str | None = None  # of the page; None speaks to the browser itself

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.buffer, self.number, self.events = b"", 0, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result; what happens in the meantime goes to `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {} if self.session is None else {"sessionId": self.session}
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The next message."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reading], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {PATIENCE} seconds"
            read = os.read(self.reading, 1 << 20)
            assert read, "Chromium has ended"
            self.buffer += read
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page into a viewport of `width` x `height` CSS pixels; `events` holds what happened since."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events = []
        answer = self.ask("Page.navigate", url=path.resolve().as_uri())
        assert "errorText" not in answer, answer
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def told(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key, pressed and let go: a letter, or its name (`ArrowDown`)."""
        text = "" if modifiers & CONTROL else key if len(key) == 1 else KEYS.get(key, "")
        code = {"Enter": 13, "Escape": 27, "Tab": 9}.get(key, 0)
        params = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **params)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **params)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of the first such element stands in the viewport."""
        script = f"(() => {{const r = document.querySelector({selector!r}).getBoundingClientRect();"
        x, y = self.told(script + "return [r.x + r.width / 2, r.y + r.height / 2]})()")
        return x, y

    def mouse(self, *places: str, modifiers: int = 0) -> None:
        """A click on the first such element; of several, a drag from the first to the last over all between."""
        ends = [self.middle(place) for place in places]
        params = {"button": "left", "clickCount": 1, "modifiers": modifiers}
        for kind, (x, y) in [
            ("mouseMoved", ends[0]),
            ("mousePressed", ends[0]),
            *(("mouseMoved", end) for end in ends[1:]),
            ("mouseReleased", ends[-1]),
        ]:
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def tap(self, selector: str) -> None:
        """A finger on the first such element."""
        x, y = self.middle(selector)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def downloaded(self, folder: Path, selector: str, name: str) -> Path:
        """The file that a click on the first such element saves."""
        page, self.session = self.session, None
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder.resolve()))
        self.session = page
        self.mouse(selector)
        end = time.monotonic() + PATIENCE
        while not (folder / name).is_file():
            assert time.monotonic() < end, f"{name} was not saved"
            time.sleep(0.05)
        return folder / name

    def picture(self, selector: str) -> np.ndarray:
        """What is drawn where the first such element stands: uint8 (H, W, 3)."""
        script = f"(() => {{const r = document.querySelector({selector!r}).getBoundingClientRect();"
        script += "const [x, y] = [r.x + scrollX, r.y + scrollY].map(Math.round);"  # a browser snaps pictures to pixels
        script += "return {x, y, width: r.width, height: r.height, scale: 1}})()"
        clip = self.told(script)
        data = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        with Image.open(io.BytesIO(base64.b64decode(data))) as shot:
            return np.asarray(shot.convert("RGB"))

    def requested(self) -> list[str]:
        """The addresses that the page asked for since it was opened, its own among them."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def complaints(self) -> list[str]:
        """What the console says against the page, such as a resource that its policy refused."""
        return [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in an empty folder, ended with the block."""
    there, writing = os.pipe()
    reading, back = os.pipe()
    # Made in this order the pipes' ends are 3 or more and 6 or more: neither overwrites the other.
    command = ["bash", "-c", f'exec "$@" 3<&{there} 4>&{back}', "bash", PROGRAM, *FLAGS, f"--user-data-dir={folder}"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "about:blank"], pass_fds=(there, back), **quiet)
    os.close(there)
    os.close(back)
    try:
        browser = Browser(reading, writing)
        yield browser
        browser.session = None
        browser.ask("Browser.close")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
