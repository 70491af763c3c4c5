"""Debian's Chromium without a window, looked at from outside: what a page draws, asks for and complains of."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

PATHS = shutil.which("chromium"), shutil.which("chromedriver")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
)


class Browser:
    """One page at a time. `close` it."""

    def __init__(self, profile: Path) -> None:
        browser, driver = PATHS
        assert browser and driver
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for option in (*_OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        environment = {**os.environ, "HOME": str(profile), "TZ": "UTC"}
        self._driver = webdriver.Chrome(options, Service(driver, env=environment))
        self._driver.set_page_load_timeout(120)
        self._driver.set_script_timeout(60)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a report, and wait until its charts are drawn."""
        self.visit(page, width, height, dark)
        self.wait(lambda: self.run("return document.documentElement.dataset.drawn || ''"))

    def visit(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file."""
        self._look(width, height, dark)
        self._driver.get(page.resolve().as_uri())

    def look(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Change the window or the colours under the page, and wait until it has followed."""
        self._look(width, height, dark)
        wanted = "dark" if dark else "light"
        self.wait(lambda: self.run("return document.documentElement.dataset.drawn") == wanted)
        self.wait(lambda: self.run("return window.innerWidth") == width)

    def _look(self, width: int, height: int, dark: bool) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": scheme})

    def run(self, script: str) -> Any:
        """What a function with that body returns."""
        return self._driver.execute_script(script)

    def drag(self, selector: str, pixels: int) -> None:
        """With the mouse, from the middle of an element to the right."""
        element = self._driver.find_element(By.CSS_SELECTOR, selector)
        self._driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self._driver).click_and_hold(element).move_by_offset(pixels, 0).release().perform()

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"it did not happen within {seconds} s"
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """What the console got since it was last asked."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since it was last asked, but for what the browser needs itself."""
        found = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        urls = [one["params"]["request"]["url"] for one in found if one["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("chrome://")]

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        metrics = self._driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        more = {"captureBeyondViewport": True, "clip": {**metrics, "scale": 1}} if whole else {}
        found = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", **more})
        path.write_bytes(base64.b64decode(found["data"]))

    def on_paper(self) -> None:
        """Lay the page out as on A4, its script told before, as browsers do."""
        self.run("window.dispatchEvent(new Event('beforeprint'))")
        size = {"width": 717, "height": 1046, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    def close(self) -> None:
        self._driver.quit()
