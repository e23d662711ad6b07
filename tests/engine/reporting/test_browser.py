"""A report in headless Chromium: clicks, sorting, the keyboard; and that it asks for nothing."""

import json
import os
import shutil
import struct
import time

import pytest

from engine.config import ReportConfig
from engine.metrics import fuse
from engine.reporting.write import make_report
from tests.engine.reporting.score_files import HOSTILE, logits, write_test

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"
)
RGB, FLOW = "rgb_tiny3D16f", "flow_tiny3D16f"


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,900"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report_file(tiny, tmp_path_factory):
    """RGB, flow and fused on the tiny test list: fusion corrects one video, and spoils one."""
    lines = (tiny.lists / "val_rgb_split1.txt").read_text().splitlines()
    labels = [int(line[-1]) for line in lines]
    rgb, flow = ([(label, 0.7) for label in labels] for _ in range(2))
    rgb[0], flow[1] = (1, 0.6), (2, 0.95)  # right, and wrong, with much in the other stream
    streams = {RGB: logits(rgb), FLOW: logits(flow)}
    path = write_test(
        tmp_path_factory.mktemp("report"),
        f"{RGB}+{FLOW}",
        fuse([*streams.values()]),
        labels,
        streams=streams,
        classes=["left", "middle", HOSTILE],
        videos=[line.rsplit(" ", 2)[0] for line in lines],
        settings=str(tiny.settings),
        frames=str(tiny.frames),
        command="python scripts/eval/combined_demo.py",
    )
    (lists := path.parent / "settings" / tiny.name).mkdir(parents=True)
    shutil.copy(tiny.lists / "val_rgb_split1.txt", lists)
    return make_report(ReportConfig(settings=path.parent / "settings"), [path])


@pytest.fixture
def page(browser, report_file):
    """The page, newly opened."""
    browser.get(report_file.as_uri())
    return Page(browser)


class Page:
    def __init__(self, driver):
        self.driver = driver

    def all(self, selector: str) -> list:
        """What is seen of a selector's elements."""
        found = self.driver.find_elements("css selector", selector)
        return [element for element in found if element.is_displayed()]

    def press(self, *keys: str) -> None:
        for key in keys:
            code = getattr(webdriver.Keys, key.upper(), key)
            webdriver.ActionChains(self.driver).send_keys(code).perform()

    def focused(self) -> str:
        element = self.driver.switch_to.active_element
        return element.get_attribute("aria-label") or element.text

    def wait(self, true) -> None:
        end = time.monotonic() + 10
        while not true():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_cell_opens_its_videos_and_a_video_its_answers(page):
    (cell,) = page.all(".panels [data-open=cell].miss")
    assert cell.get_attribute("aria-label") == f"1 videos of left, predicted {HOSTILE}"
    cell.click()
    (title,) = page.all("#list h2")
    assert title.text == f"1 of “left”, predicted “{HOSTILE}” (Fused)"
    (card,) = page.all("#list .card")
    assert "val (#1) [0]" in card.text and f"Flow: {HOSTILE}" in card.text
    card.click()
    rows = page.all("#detail .row")
    assert len(rows) == 9 and rows[0].text.split() == ["left", "70.0", "%"]
    assert page.all("#detail .strip img")[0].rect["width"] > 500
    page.press("escape")
    assert not page.all("#detail") and page.all("#list .card")
    page.press("escape")
    assert not page.all("dialog")
    # both sides of a fusion
    assert [element.text for element in page.all("#pairs h5")] == [
        "1 corrected by fusion",
        "1 spoiled by fusion",
        "0 corrected by fusion",
        "0 spoiled by fusion",
    ]


def test_a_clip_plays_while_it_is_pointed_at_or_focused(page):
    card = page.all("#tests .card")[0]
    clip = card.find_element("css selector", ".clip")
    assert clip.get_attribute("data-playing") == ""
    webdriver.ActionChains(page.driver).move_to_element(card).perform()
    assert clip.get_attribute("data-playing") == "yes"
    picture = clip.find_element("css selector", "img")
    begun = picture.get_attribute("style")
    page.wait(lambda: picture.get_attribute("style") != begun)
    webdriver.ActionChains(page.driver).move_to_element(page.all("h1")[0]).perform()
    assert clip.get_attribute("data-playing") == ""
    page.driver.execute_script("arguments[0].focus()", card)
    assert clip.get_attribute("data-playing") == "yes"


def test_a_table_is_sorted(page):
    def names() -> list[str]:
        return [element.text for element in page.all(".sortable tbody th")]

    assert names() == ["left", "middle", HOSTILE]
    by_share = page.all(".sortable thead button")[2]
    by_share.click()
    assert names()[0] == "left"  # 66.7 %
    by_share.click()
    assert names()[-1] == "left"
    assert by_share.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    page.all(".sortable thead button")[0].click()
    assert names() == [HOSTILE, "left", "middle"]


def test_the_keyboard_suffices(page):
    page.press("tab")
    assert page.focused() == "Skip to the results"
    # tabs
    page.driver.execute_script("document.querySelector('[role=tab][tabindex=\"0\"]').focus()")
    assert page.focused().startswith("Fused")
    page.press("arrow_left")
    assert page.focused().startswith("Flow")
    assert [e.get_attribute("id") for e in page.all("[role=tabpanel]")] == ["test1"]
    page.press("arrow_right")
    # the matrix is the tab's next stop; arrows move in it, Enter opens
    page.press("tab")
    assert page.focused() == "2 videos of left, predicted left"
    page.press("arrow_right")
    assert page.focused() == f"1 videos of left, predicted {HOSTILE}"
    page.press("enter")
    assert len(page.all("#list .card")) == 1
    page.press("tab", "enter")  # its close button comes first, and is focused already
    assert page.all("#detail h2")[0].text == "left · val (#1) [0]"
    page.press("escape", "escape")
    assert page.focused() == f"1 videos of left, predicted {HOSTILE}"


def test_nothing_is_asked_for_and_nothing_fails(page, tmp_path):
    driver = page.driver
    for tab in page.all("[role=tab]"):
        tab.click()
    assert driver.execute_script("return typeof alerted") == "undefined"
    assert not driver.get_log("browser")
    requests = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {
        request["params"]["request"]["url"][:5]
        for request in requests
        if request["method"] == "Network.requestWillBeSent"
    }
    assert urls <= {"file:", "data:"} and "file:" in urls
    # a picture of it, on a phone, too
    for width in (1200, 390):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        picture = tmp_path / f"{width}.png"
        driver.save_screenshot(str(picture))
        assert struct.unpack(">II", picture.read_bytes()[16:24]) == (width, 800)
        assert os.path.getsize(picture) > 20_000
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
