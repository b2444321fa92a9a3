"""A browser and the pages that it opens."""

import dataclasses
import shutil

import pytest
from browser_pages import LAPTOP, compared_studies, is_drawn, odd_studies, wait_until
from mask_folders import SCHEME

from nnunet_temporal.report.page import render_page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """Write all pages; return their addresses by name."""
    compared = compared_studies()
    first = compared[0]
    many = [dataclasses.replace(first, layout={**first.layout, "name": f"p{number}"}) for number in range(200)]
    folder, addresses = tmp_path_factory.mktemp("pages"), {}
    for name, studies in (("compared", compared), ("odd", odd_studies()), ("many", many)):
        (folder / f"{name}.html").write_text(render_page(name, studies, SCHEME, [("Made", "today")]), encoding="utf-8")
        addresses[name] = (folder / f"{name}.html").as_uri()
    return addresses


@pytest.fixture(scope="module")
def browser():
    """Start the browser, once per file; skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(PROGRAMS)} is installed")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser, pages):
    """Return what opens a page and notes what it asks for and complains about; neither may happen."""
    contexts, faults = [], []

    def open_page(name, viewport=LAPTOP, motion="reduce", strict=True, **options):
        context = browser.new_context(viewport=viewport, reduced_motion=motion, **options)
        contexts.append(context)
        page = context.new_page()
        if strict:
            page.on("console", lambda message: faults.append(message.text))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda request: outside(request.url) and faults.append(request.url))
        page.on("response", lambda response: outside(response.url) and faults.append(response.url))
        page.goto(pages[name])
        if options.get("java_script_enabled", True):
            wait_until(page, lambda: is_drawn(page))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def outside(address):
    return not address.startswith(("file:", "data:"))
