# SPDX-License-Identifier: GPL-2.0-only
"""usage: python -m report.pictures RUN FOLDER

Takes README's pictures of a run's page, in Chromium: the answers, and an opened cell.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException

from report import html
from report.merge import Unreadable, load

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # which root can't have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
)
_SIZE = (1200, 600)
_CELL = "td.broken button, td.known-issue button"


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium. Raises Unreadable where there is none."""
    driver = shutil.which("chromedriver")
    if not (driver and shutil.which("chromium")):
        raise Unreadable("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def set_screen(page: webdriver.Chrome, width: int, height: int) -> None:
    """Has a page think that the screen is of that many pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def take(run: Path, folder: Path) -> None:
    """Writes answers.png and, if anything is broken or known to be, cell.png into the folder.
    Raises Unreadable or OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as page, tempfile.NamedTemporaryFile(suffix=".html") as file:
        Path(file.name).write_text(html.document(load(run)), encoding="utf-8")
        page.get(Path(file.name).as_uri())
        set_screen(page, *_SIZE)
        page.save_screenshot(str(folder / "answers.png"))
        try:
            cell = page.find_element("css selector", _CELL)
        except NoSuchElementException:
            return
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
        cell.click()
        page.save_screenshot(str(folder / "cell.png"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m report.pictures RUN FOLDER")
    try:
        take(Path(sys.argv[1]), Path(sys.argv[2]))
    except (Unreadable, OSError) as error:
        sys.exit(f"report.pictures: {error}")
