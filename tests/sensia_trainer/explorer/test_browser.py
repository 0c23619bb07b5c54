"""The page in a real browser: every tab is opened, typed into and its answer read, by mouse and by keyboard.

`SENSIA_SCREENSHOTS=docs/images pytest -m browser` renders the pictures of the documentation anew.
"""

import base64
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from .conftest import HOSTILE


pytest.importorskip("gradio")
pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from sensia_trainer.explorer import page as pages  # noqa: E402
from sensia_trainer.explorer.models import load_explored  # noqa: E402


ROOT = Path(__file__).parents[3]
MODEL = ROOT / "model_cards" / "backpack-micro-sensia-id"
WAIT = 30  # seconds, on a machine that does other things too
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    binary, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("there is no chromium with chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1120,900"):
        options.add_argument(f"--{argument}")
    # No name is looked up but this machine's: the page has to do without the network.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    try:
        browser = webdriver.Chrome(options, Service(driver))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start here: {str(error).splitlines()[0]}")
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def page(browser):
    """The page of a released model, as `sensia explore` serves it, opened once for all tests."""
    blocks = pages.build_page(*load_explored([str(MODEL)]))
    _, url, _ = pages.launch(blocks, server_name="127.0.0.1", prevent_thread_lock=True)
    browser.get(url)
    until(lambda: "senses of “book”" in view(browser, "senses"))
    yield browser
    blocks.close()


def until(condition):
    """Wait until a condition holds, and return what it gives."""
    end = time.monotonic() + WAIT
    while True:
        try:
            if found := condition():
                return found
        except WebDriverException:  # in between, parts of the page are replaced
            pass
        assert time.monotonic() < end, "the page did not come to show what was waited for"
        time.sleep(0.05)


def view(page, name) -> str:
    """What a tab shows, as text."""
    return page.find_element(By.ID, f"{name}-view").get_attribute("textContent")


def open_tab(page, label):
    (tab,) = page.find_elements(By.XPATH, f"//button[@role='tab' and .='{label}']")
    tab.click()
    until(lambda: tab.get_attribute("aria-selected") == "true")


def type_into(page, field, text):
    """Replace what a field holds, all at once: keys alone cannot type every script."""
    element = page.find_element(By.CSS_SELECTOR, f"#{field} textarea, #{field} input")
    element.click()
    element.send_keys(Keys.CONTROL, "a")
    element.send_keys(Keys.DELETE)
    page.execute_cdp_cmd("Input.insertText", {"text": text})
    return element


def press(page, name):
    button = page.find_element(By.ID, f"{name}-show")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def picture(page, name, most=10_000):
    folder = os.environ.get("SENSIA_SCREENSHOTS")
    if not folder:
        return
    time.sleep(0.5)  # until colours have faded in
    width, height = page.execute_script("return [innerWidth, document.body.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
    taken = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / name).write_bytes(base64.b64decode(taken["data"]))


def test_senses_of_a_word(page):
    open_tab(page, "Senses")
    picture(page, "explorer.png", 900)
    type_into(page, "senses-word", "water").send_keys(Keys.ENTER)
    until(lambda: "The 16 senses of “water”" in view(page, "senses"))
    marked = {one.text for one in page.find_elements(By.CSS_SELECTOR, "#senses-view mark")}
    assert marked == {"air"}
    page.find_element(By.XPATH, "//button[normalize-space()='laut']").click()
    until(lambda: "The 16 senses of “laut”" in view(page, "senses"))


def test_weights_in_a_sentence(page):
    open_tab(page, "Weights")
    type_into(page, "weights-text", "The sea and the")
    press(page, "weights")
    until(lambda: "after “the”" in view(page, "weights"))
    tokens = page.find_elements(By.CSS_SELECTOR, "#weights-tokens label")
    assert [one.text for one in tokens] == ["start", "The", "sea", "and", "the"]
    tokens[2].click()
    until(lambda: "after “sea”" in view(page, "weights"))
    assert len(page.find_elements(By.CSS_SELECTOR, "#weights-view .heat tbody tr")) == 3
    page.find_elements(By.CSS_SELECTOR, "#weights-by label")[1].click()
    until(lambda: "in logits" in view(page, "weights"))


def test_a_sense_is_silenced(page):
    open_tab(page, "Steering")
    assert "sense 0 of “file” times 5" in view(page, "steer")
    type_into(page, "steer-text", "My mother gave the book")
    until(lambda: page.find_element(By.CSS_SELECTOR, "#steer-word input").get_property("value") == "book")
    for field, value in (("steer-factor", "0"), ("steer-sense", "1"), ("steer-length", "4")):
        number = page.find_element(By.CSS_SELECTOR, f"#{field} input[type=number]")
        number.send_keys(Keys.CONTROL, "a")
        number.send_keys(value, Keys.TAB)
    press(page, "steer")
    until(lambda: "sense 1 of “book” silenced" in view(page, "steer"))
    assert "The prediction moved by" in view(page, "steer")


def test_sentences_find_their_translations(page):
    open_tab(page, "Retrieval")
    assert "senses find 4 of 4" in view(page, "retrieve")
    type_into(page, "retrieve-source", "The water is cold.\nThe king has a book.\nI see the sea.")
    type_into(page, "retrieve-target", "Air itu dingin.\nRaja punya buku.\nSaya melihat laut.")
    press(page, "retrieve")
    until(lambda: "Raja punya buku" in view(page, "retrieve"))
    assert len(page.find_elements(By.CSS_SELECTOR, "#retrieve-view table")) == 3
    assert "of 3, contexts" in view(page, "retrieve")


def test_a_map_before_and_after(page):
    open_tab(page, "Map")
    panels = page.find_elements(By.CSS_SELECTOR, "#map-view figure")
    assert [panel.find_element(By.TAG_NAME, "h3").text for panel in panels] == [
        "Before: backpack-micro-en", "After: backpack-micro-sensia-id",
    ]  # fmt: skip
    picture(page, "explorer-map.png")
    type_into(page, "map-words", "water = air\nday = hari\nname = nama")
    press(page, "map")
    until(lambda: "of 3 words" in view(page, "map"))
    assert len(page.find_elements(By.CSS_SELECTOR, "#map-view svg[role=img]")) == 2


def test_another_model_answers_all_tabs(page):
    open_tab(page, "Senses")
    type_into(page, "senses-word", "book").send_keys(Keys.ENTER)
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#senses-view mark"))
    page.find_elements(By.CSS_SELECTOR, "#model label")[1].click()
    until(lambda: not page.find_elements(By.CSS_SELECTOR, "#senses-view mark"))  # unadapted, no sense finds “buku”
    page.find_elements(By.CSS_SELECTOR, "#model label")[0].click()
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#senses-view mark"))


def texts(page, selector):
    return [one.text for one in page.find_elements(By.CSS_SELECTOR, selector)]


@pytest.mark.slow
def test_hostile_input_stays_text(page):
    for name in ("markup", "template", "long", "scripts"):
        open_tab(page, "Senses")
        type_into(page, "senses-word", HOSTILE[name])
        press(page, "senses")
        until(lambda: re.search(r"type one word|senses of “(?!book|laut)", view(page, "senses")))
        open_tab(page, "Weights")
        type_into(page, "weights-text", HOSTILE[name])
        press(page, "weights")
        first = HOSTILE[name][:1]  # behind "start"
        until(lambda first=first: [text[:1] for text in texts(page, "#weights-view tbody bdi")][1:2] == [first])
    assert page.execute_script("return window.hacked === undefined")
    assert not page.find_elements(By.CSS_SELECTOR, ".view img, .view script")
    errors = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [error for error in errors if "127.0.0.1" in error and "manifest" not in error]


def test_a_keyboard_is_enough(page):
    open_tab(page, "Senses")
    tab = page.find_element(By.CSS_SELECTOR, "button[role=tab][aria-selected=true]")
    page.execute_script("arguments[0].focus()", tab)
    for _ in range(12):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.execute_script("return !!document.activeElement.closest('#senses-word')"):
            break
    field = page.switch_to.active_element
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("sea", Keys.ENTER)
    until(lambda: "senses of “sea”" in view(page, "senses"))
    field.send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "senses-show"


def test_a_phone_shows_all_tabs_and_nothing_beside_the_screen(page):
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.refresh()
    until(lambda: "senses of “book”" in view(page, "senses"))
    tabs = until(lambda: (found := page.find_elements(By.CSS_SELECTOR, "button[role=tab]"))[4:] and found)
    for tab in [one.text for one in tabs]:
        open_tab(page, tab)
        assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
    open_tab(page, "Senses")
    picture(page, "explorer-phone.png", 1300)
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
