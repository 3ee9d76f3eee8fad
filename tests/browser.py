"""A page in a real browser: opened from the disk, watched for errors and for anything that it asks a network for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDE = {"viewport": {"width": 1500, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "has_touch": True, "is_mobile": True}
# Chromium looks for its maker's servers otherwise. Without a sandbox of its own it runs for root and in containers.
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """This machine's Chromium, or else Playwright's own."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """The page with its plots drawn. Nothing may have gone wrong in it, nor been asked for, when it is left."""
    context = browser.new_context(**options)
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if _leaves(request.url, path) else None)
    page.goto(path.as_uri())
    page.evaluate("window.plotsDrawn.then(() => null)")
    yield page
    assert trouble == [], trouble
    context.close()


def _leaves(url: str, path: Path) -> bool:
    return url != path.as_uri() and not url.startswith(("data:", "blob:"))


def hurdles(page: Page) -> str:
    """What axe finds to be in the way of people who use a page otherwise than most; empty when there is nothing."""
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""
