"""Open a page from the disk in a real browser and record its errors and network requests."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDE = {"viewport": {"width": 1500, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "has_touch": True, "is_mobile": True}
# Chromium must not contact Google's servers. Without a sandbox it also runs as root and in containers.
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
    """Start the installed Chromium, or that of Playwright."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield browser
        _idle.clear()
        browser.close()


# Tabs of earlier tests, by the options of their contexts: in a new one, Chromium would compile the scripts again.
_idle: defaultdict[str, list[Page]] = defaultdict(list)


@contextmanager
def opened(
    browser: Browser, path: Path, color_scheme: Any = "light", folder: Path | None = None, **options: Any
) -> Iterator[Page]:
    """Open a page and draw its plots. At the end, assert that it logged no errors and requested nothing else.

    A page of a site may request files of its `folder`.
    """
    own = f"{folder.as_uri()}/" if folder else path.as_uri()
    idle = _idle[repr(options)]
    page = idle.pop() if idle else browser.new_context(**options).new_page()
    problems: list[str] = []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: problems.append(f"{message.type}: {message.text}"),
        "pageerror": lambda error: problems.append(str(error)),
        "request": lambda request: problems.append(request.url) if _is_external(request.url, own) else None,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.emulate_media(color_scheme=color_scheme)
    page.mouse.move(0, 0)
    page.goto(path.as_uri())
    page.evaluate("window.plotsDrawn?.then(() => null)")
    yield page
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert problems == [], problems
    page.goto("about:blank")
    idle.append(page)


def _is_external(url: str, own: str) -> bool:
    is_own = url.startswith(own) if own.endswith("/") else url == own
    return not is_own and not url.startswith(("data:", "blob:"))


# Each width and each colour scheme once.
DEVICES = pytest.mark.parametrize(("device", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])


def accessibility_violations(page: Page) -> str:
    """Return the report of axe about the page; empty without violations."""
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


def assert_accessible(page: Page, width: int) -> None:
    """Check a page that shows images, and its magnifier, for accessibility and for content wider than the screen."""
    assert accessibility_violations(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".magnify").first.click()
    assert accessibility_violations(page) == ""
