# SPDX-License-Identifier: GPL-2.0-only
"""The page in a real browser: what a reader sees, by mouse, keyboard and on a phone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.wait import WebDriverWait

from report import diff, html, mutants, pictures
from report.merge import load

GOLDEN = Path(__file__).parent / "golden" / "streams"
PLOT = Path(__file__).parent.parent / "bench" / "results.svg"
PHONE, DESK = (390, 844), (1400, 1000)

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="no browser: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with pictures.browser() as opened:
        yield opened


FAULT = {"id": "1", "place": "mm/mprotect.c:210", "fault": "the test of pte_none() is always false"}
MUTANTS = {
    "release": "6.12.107",
    "score": 50.0,
    "selftests": "The kernel's own selftests reach 1 of 2 faults.",
    "faults": [
        FAULT | {"state": "killed", "killer": "none_pte.a.b", "clause": "NONE-2", "reason": ""},
        FAULT | {"state": "race", "killer": "", "clause": "", "reason": "no case hits it"},
    ],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, earlier = load(GOLDEN / "normal"), load(GOLDEN / "panic")
    folder = tmp_path_factory.mktemp("page")
    table, made = folder / "table.json", folder / "report.html"
    table.write_text(json.dumps(MUTANTS))
    score, plot = mutants.load(table), PLOT.read_text()
    made.write_text(html.document(run, diff.changes(earlier, run), plot, score))
    return made


@pytest.fixture
def page(driver: webdriver.Chrome, file: Path) -> webdriver.Chrome:
    driver.set_window_size(*DESK)
    driver.get(file.as_uri())
    return driver


def find(page: webdriver.Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def cell(page: webdriver.Chrome, clause: str, kernel: int) -> WebElement:
    return find(page, f"#{clause} button[data-kernel='{kernel}']")


def follows(page: webdriver.Chrome) -> WebDriverWait[webdriver.Chrome]:
    """What a browser does in a task of its own, as it tells of a dialog's close and a new hash."""
    return WebDriverWait(page, 60, poll_frequency=0.02)


def shown(page: webdriver.Chrome) -> list[str]:
    seen = "[...document.querySelectorAll('tr.clause')].filter((row) => row.checkVisibility())"
    return [str(name) for name in page.execute_script(f"return {seen}.map((row) => row.id)")]


def test_the_page_loads_without_complaint_and_asks_for_nothing_else(
    page: webdriver.Chrome,
) -> None:
    assert page.execute(Command.GET_LOG, {"type": "browser"})["value"] == []
    asked = page.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in asked if not name.startswith("data:")] == []


def test_the_snapshot_question_is_answered_on_the_first_screen(page: webdriver.Chrome) -> None:
    first = find(page, "#answers tbody tr")
    assert first.text.startswith("Take a live snapshot without reading all memory first")
    assert "in Linux since 6.4" in first.text
    assert first.rect["y"] + first.rect["height"] < DESK[1] / 3


def test_a_cell_opens_to_its_cases_and_escape_closes_it(page: webdriver.Chrome) -> None:
    cell(page, "SHMEM-5", 1).click()
    dialog = find(page, "dialog")
    assert find(page, "#cell-title").text == "SHMEM-5 on 6.12: known issue"
    assert "expected failure: shmem.hole_punch" in dialog.text
    dialog.send_keys(Keys.ESCAPE)
    follows(page).until(seen.invisibility_of_element(dialog))


def test_an_open_cell_has_an_address(page: webdriver.Chrome, file: Path) -> None:
    cell(page, "SHMEM-5", 1).click()
    follows(page).until(seen.url_to_be(f"{file.as_uri()}#SHMEM-5/6.12"))
    find(page, "dialog").send_keys(Keys.ESCAPE)
    follows(page).until(seen.url_to_be(f"{file.as_uri()}#SHMEM-5"))
    page.get("about:blank")
    page.get(f"{file.as_uri()}#SHMEM-5/6.12")
    assert find(page, "#cell-title").text == "SHMEM-5 on 6.12: known issue"


def test_a_clause_that_is_linked_to_is_shown_whatever_the_filter(page: webdriver.Chrome) -> None:
    find(page, "#search").send_keys("SHMEM-5")
    find(page, "#answers a[href='#NONE-2']").click()
    follows(page).until(seen.visibility_of(find(page, "#NONE-2")))


def test_a_known_issue_tells_its_reason_at_once(page: webdriver.Chrome) -> None:
    cell(page, "SHMEM-5", 1).click()
    assert find(page, "details[open] .reason").text.startswith("REGISTER without WP succeeds")


def test_what_the_suite_catches_is_told_where_it_is_known(page: webdriver.Chrome) -> None:
    told = find(page, "#mutants").text
    assert "50.0 % of the faults that were planted in Linux 6.12.107" in told
    assert find(page, "#mutants details a").get_attribute("hash") == "#NONE-2"


def test_the_plot_is_part_of_the_page(page: webdriver.Chrome) -> None:
    assert page.execute_script("return document.querySelector('#cost img').naturalWidth") > 100


def test_arrow_keys_move_and_enter_opens(page: webdriver.Chrome) -> None:
    cell(page, "API-1", 0).send_keys(Keys.ENTER)
    assert find(page, "#cell-title").text.startswith("API-1 on 6.1")
    find(page, "dialog").send_keys(Keys.ESCAPE)
    follows(page).until(seen.invisibility_of_element(find(page, "dialog")))
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element == cell(page, "API-2", 1)


def test_slash_searches_clauses_by_word_and_by_case(page: webdriver.Chrome) -> None:
    find(page, "body").send_keys("/")
    search = page.switch_to.active_element
    search.send_keys("marker", " ", "mincore")
    assert shown(page) == ["NONE-4"]
    search.clear()
    search.send_keys("hole_punch_keeps")
    assert len(shown(page)) == 1


def test_what_is_shown_can_be_narrowed(page: webdriver.Chrome) -> None:
    find(page, "#only option[value='known-issue']").click()
    assert shown(page) == ["SHMEM-5"]


@pytest.fixture(params=[PHONE, DESK], ids=["phone", "desk"])
def width(request: pytest.FixtureRequest, page: webdriver.Chrome) -> Iterator[int]:
    """The page's, in pixels, on a screen of that size."""
    pictures.set_screen(page, *request.param)
    yield request.param[0]
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_needs_to_be_scrolled_sideways(page: webdriver.Chrome, width: int) -> None:
    for selector in ("html", "#answers .wide", "#clauses .wide"):
        script = "return document.querySelector(arguments[0]).scrollWidth"
        assert page.execute_script(script, selector) <= width


def test_each_cell_says_its_kernel(page: webdriver.Chrome, width: int) -> None:
    name = page.execute_script(
        "return getComputedStyle(arguments[0], '::before').content", cell(page, "API-1", 1)
    )
    head = find(page, ".matrix thead").is_displayed()
    assert (name, head) == (('"6.12"', False) if width == PHONE[0] else ("none", True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_background(page: webdriver.Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for selector in ("body", "td.kept b", "td.known-issue b", "small"):
        assert contrast(page, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3


def contrast(page: webdriver.Chrome, selector: str) -> float:
    """The contrast ratio of an element's text, as WCAG defines it."""
    colours = page.execute_script(
        """
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        let at = document.querySelector(arguments[0]);
        const ink = rgb(getComputedStyle(at).color);
        for (; at; at = at.parentElement) {
          const paper = rgb(getComputedStyle(at).backgroundColor);
          if (paper.length == 3) return [ink, paper];
        }
        """,
        selector,
    )
    bright, dim = sorted((luminance(colour) for colour in colours), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: list[float]) -> float:
    parts = [part / 255 for part in colour[:3]]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_pictures_for_the_readme(tmp_path: Path) -> None:
    pictures.take(GOLDEN / "normal", tmp_path)
    for name in ("answers.png", "cell.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
