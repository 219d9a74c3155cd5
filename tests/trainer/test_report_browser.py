"""The report's page in a real browser, by the DevTools protocol over a pair of pipes; started once."""

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.report import main

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


class Browser:
    """A headless Chromium with one tab. events: what it said since the page was opened."""

    def __init__(self, profile: Path) -> None:
        their_in, self._to = os.pipe()
        self._from, their_out = os.pipe()
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "bash", *command],
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self._number, self._buffer, self._session = 0, b"", {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def look(self, width: int, scheme: str) -> None:
        """A phone's or a desk's width, and the system's colours."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def value(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        names = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **names)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def said(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") in methods]

    def close(self) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        self._process.wait(20)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 30)
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, "the browser has ended, or says nothing"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Two conditions, three seeds, one of them not done, a hostile object, and a picture."""
    folder = tmp_path_factory.mktemp("report")
    run = folder / "runs/one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"name: {json.dumps(HOSTILE)}\n")
    colours = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((600, 400)).save(run / "scenes.png")
    cells = [
        {
            "run": "one",
            "object": object_name,
            "detector": "SSD",
            "condition": condition,
            "num_real": num_real,
            "seed": seed,
            "steps": 40,
            "seconds": 60.0 + seed,
            "error": None,
            "scores": None if seed == 2 and num_real == 10 else {"AP50": score + seed / 100, "AP": score / 2},
            "folder": f"runs/one/{place}-{condition}-{num_real}-{seed}",
        }
        for place, object_name in enumerate(("birds", HOSTILE))
        for num_real in (10, 100)
        for condition, score in (("no_pretraining", 0.3), ("with_pretraining", 0.5))
        for seed in (0, 1, 2)
    ]
    values = {"name": "one", "title": HOSTILE, "cells": cells}
    (folder / "results.json").write_text(json.dumps(values))
    assert main([str(folder), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def opened(browser: Browser, report: Path) -> Browser:
    browser.look(1400, "light")
    browser.open(report)
    return browser


COLUMN = """(name) => {
  const table = document.querySelector("#trainings-table");
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.textContent.trim() === name);
  return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[column].textContent);
}"""


def test_nothing_is_complained_of_and_nothing_fetched(opened: Browser) -> None:
    complaints = opened.said("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert complaints == []
    asked = {params["request"]["url"].split(":")[0] for params in opened.said("Network.requestWillBeSent")}
    assert asked <= {"file", "data"}
    assert opened.value("document.title") == f"{HOSTILE} – report"


def test_pictures_load_and_say_what_they_show(opened: Browser) -> None:
    loaded = opened.value("[...document.images].map((i) => [i.complete && i.naturalWidth, i.alt])")
    assert loaded == [[600, "training scenes of one, with their boxes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_no_wider_than_the_screen(opened: Browser, width: int, scheme: str) -> None:
    opened.look(width, scheme)
    assert opened.value("document.documentElement.scrollWidth") <= width
    paper = opened.value("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(251, 250, 248)", "dark": "rgb(21, 23, 26)"}[scheme]


def test_a_press_of_a_key_sorts_by_numbers_and_back_what_lacks_comes_last(opened: Browser) -> None:
    opened.value(
        "[...document.querySelectorAll('#trainings-table th button')]"
        ".find((button) => button.textContent === 'AP50').focus()"
    )
    for expected in ("ascending", "descending"):
        opened.press("Enter", 13, "\r")
        found = opened.value(f"({COLUMN})('AP50')")
        assert found[-4:] == ["–"] * 4
        numbers = [float(text) for text in found[:-4]]
        assert numbers == sorted(numbers, reverse=expected == "descending")
        assert opened.value("document.activeElement.closest('th').getAttribute('aria-sort')") == expected


def test_the_filter_leaves_rows_that_hold_every_word(opened: Browser) -> None:
    opened.value("document.querySelector('#trainings-filter').focus()")
    opened.call("Input.insertText", text="birds scratch")
    assert set(opened.value(f"({COLUMN})('condition')")) == {"from scratch"}
    assert set(opened.value(f"({COLUMN})('object')")) == {"birds"}
    assert opened.value("document.querySelector('#trainings-table-count').textContent") == "6 of 24"


def test_the_button_goes_through_the_colours(opened: Browser) -> None:
    seen = []
    for _ in range(3):
        opened.value("document.querySelector('#theme').click()")
        seen.append(opened.value("getComputedStyle(document.documentElement).colorScheme"))
    assert seen == ["light", "dark", "light"]  # light, dark, the system's
