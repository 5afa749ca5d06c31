"""What a person sees: the run form, a run of the real graph at profile smoke, its report, and two versions in MLflow.

With ``MUOMNI_SCREENSHOTS`` naming a folder, the pictures of docs/runs.md are taken.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_project import copy_of_this
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, Page, expect, sync_playwright
from workplace import Place, opened

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
WHOLE_RUN = 900_000  # ms that the graph at profile smoke may take on a busy machine
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; scripts/browser.sh installs it")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A workplace in a copy of this checkout, as it is now, committed."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_of_this(folder)
    with opened(folder) as place:
        yield place


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def open_page(browser: Browser, foreign: list[str]) -> Page:
    """A page that notes requests to other machines."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})

    def note(url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")):
            foreign.append(url)

    page.on("request", lambda request: note(request.url))
    page.on("websocket", lambda socket: note(socket.url))
    return page


def picture(page: Page, name: str) -> None:
    """Take a picture for the documentation, if that is wanted."""
    if folder := os.environ.get("MUOMNI_SCREENSHOTS"):
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(folder) / f"{name}.png")


def without_assistant(page: Page) -> None:
    """Close MLflow's panel beside the page, which stays so."""
    panel = page.get_by_role("button", name="Close", exact=True)
    if panel.count():
        panel.last.click()


def open_form(page: Page, place: Place) -> None:
    """Go to the run form of `train`, as a person does."""
    page.goto(f"{place.api.removesuffix('/api')}/deployments")
    page.locator("a[href*='/deployments/deployment/']", has_text="train").first.click()
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.get_by_text("Custom run").first.click()
    page.get_by_role("button", name="Submit").wait_for()


def choose(page: Page, number: int, option: str) -> None:
    """Choose from the form's drop-down list with a number."""
    control = page.locator(".p-select-button__control").nth(number)
    control.focus()
    page.keyboard.press("Space")
    page.locator(".p-select-option", has_text=option).first.click()
    expect(control).to_have_text(option)


def start_by_form(page: Page, place: Place, seed: int) -> None:
    """Start profile smoke with a seed, and wait for the run's end on its page."""
    open_form(page, place)
    choose(page, 0, "smoke")
    page.locator("input[type=number]").first.fill(str(seed))
    page.get_by_role("button", name="Submit").click()
    page.locator("a[href*='/runs/flow-run/']").first.click()
    page.get_by_text("Running", exact=True).first.wait_for()


def test_from_the_form_to_the_report_and_two_versions_side_by_side(real: Place, browser: Browser) -> None:
    foreign: list[str] = []
    page = open_page(browser, foreign)
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    open_form(page, real)
    picture(page, "form")
    page.locator("input[type=number]").first.fill("-1")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("-1 is less than the minimum of 0").first).to_be_visible()

    start_by_form(page, real, 1)
    page.get_by_text("Task Runs", exact=True).last.click()
    expect(page.get_by_text("corpus-images").first).to_be_visible()
    page.get_by_text("a-thinker").first.wait_for(timeout=WHOLE_RUN)
    picture(page, "running")
    address = page.url
    first = address.partition("/flow-run/")[2].partition("?")[0]
    page.goto("about:blank")  # drawing the running timeline without a GPU takes a core
    assert real.ended(first, WHOLE_RUN / 1000) == "COMPLETED", real.logs(first)
    page.goto(address)
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.get_by_text("Artifacts", exact=True).last.click()
    page.locator("a[href*='/artifacts/artifact/']", has_text="report-").first.click()
    expect(page.get_by_role("heading", name="Figures")).to_be_visible()
    curves = page.locator("img[alt*='loss']")
    expect(curves).to_be_visible()
    assert curves.evaluate("e => e.naturalWidth") > 500
    sound = page.locator("audio")
    sound.wait_for()
    page.wait_for_function("document.querySelector('audio').duration > 0.1")
    changed = page.get_by_role("table").first.inner_text().split()
    assert changed == ["parameter", "value", "seed", "1"], "what nobody touched is as in the profile"
    assert "accuracy" in page.inner_text("body") and "there is no champion" in page.inner_text("body")
    picture(page, "report")
    curves.scroll_into_view_if_needed()
    picture(page, "curves")

    page.goto("about:blank")
    second = real.start(profile="smoke", changes={"seed": 1, "e_omni": {"lr": 0.003}})
    assert real.ended(second, WHOLE_RUN / 1000) == "COMPLETED", real.logs(second)
    names = {t["name"] for t in real.tasks(second)}
    assert {"a-thinker (cached)", "e-omni", "evaluate", "register"} <= names, names

    compared, promoted = real.start("compare", versions=["1", "2"]), real.start("promote", version="2")
    assert real.ended(compared) == real.ended(promoted) == "COMPLETED", real.logs(compared) + real.logs(promoted)
    comparison = real.artifacts(compared)["comparison"]
    assert "dictation_cer" in comparison and "data:image/png" in comparison
    assert "muomni version" in real.artifacts(promoted)["promotion"]

    client = MlflowClient(f"sqlite:///{real.folder}/mlruns/mlflow.db")
    versions = sorted(client.search_model_versions("name = 'muomni'"), key=lambda version: int(version.version))
    assert [version.version for version in versions] in (["1", "2"], [1, 2])
    runs = json.dumps({str(version.version): version.run_id for version in versions})
    ui = f"http://127.0.0.1:{real.mlflow_port}"
    page.goto(f"{ui}/#/compare-model-versions?name={quote(json.dumps('muomni'))}&runs={quote(runs)}")
    # The page hides what both versions have in common; the changed learning rate moves this one.
    expect(page.get_by_text("omni_perplexity").first).to_be_visible()
    for version in versions:
        assert version.run_id in page.inner_text("body")
    without_assistant(page)
    picture(page, "compare")

    page.goto(f"{ui}/#/models/muomni/versions/2")
    expect(page.get_by_role("heading", name="Known limits")).to_be_visible()  # the card is its description
    picture(page, "version")

    (experiment,) = client.search_experiments(filter_string="name = 'muomni'")
    trained = quote("tags.stage = 'e-omni'")
    page.goto(f"{ui}/#/experiments/{experiment.experiment_id}/runs?compareRunsMode=CHART&searchFilter={trained}")
    parents = page.get_by_role("gridcell").filter(has=page.get_by_role("link", name="train", exact=True))
    expect(parents).to_have_count(2)
    for number in range(2):
        parents.nth(number).get_by_role("button").first.click()  # unfolds the runs of its stages
    expect(page.get_by_role("link", name="e-omni", exact=True)).to_have_count(2)
    page.get_by_placeholder("Search metric charts").fill("loss")
    expect(page.get_by_text("text_loss", exact=True).first).to_be_visible()
    picture(page, "charts")
    assert not foreign, foreign
