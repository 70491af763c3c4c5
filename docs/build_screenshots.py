"""Write the pictures of report.md: `python docs/build_screenshots.py`. Takes Chromium, its driver, and Pillow."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "report"))


def main() -> None:
    from browser import Browser
    from pasts import a_day
    from PIL import Image

    from ddmq_hpc.report.page import report, write

    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory, "report.html")
        # A day that is always the same: the pictures change with the page alone.
        queue = a_day(Path(directory, "scratch", "queues"), time.time())
        write(str(page), report(queue).replace(directory, ""))
        browser = Browser(Path(directory, "profile"))
        try:
            for name, dark in (("light", False), ("dark", True)):
                picture = HERE / f"report-{name}.png"
                browser.open(page, 1280, 1192, dark)
                browser.picture(picture)
                with Image.open(picture) as image:
                    image.convert("RGB").save(picture, optimize=True)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
