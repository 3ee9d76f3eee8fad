"""The documentation site as `make docs` builds it, in a browser from the disk."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import click
import pytest
from browser import DEVICES, PHONE, WIDE, opened
from docs_commands import ROOT
from helpers import TIMEOUT_S
from playwright.sync_api import Browser, Page
from test_docs_links import anchors

from shardgen.cli import commands as shardgen_commands
from trainer.cli import commands as trainer_commands

pytestmark = pytest.mark.slow


def build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", folder]
    # Nothing listens at this address: downloads would fail.
    environment = {**os.environ, **dict.fromkeys(("http_proxy", "https_proxy"), "http://[::1]:9")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = build(ROOT / "mkdocs.yml", folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def text_of(page: Path) -> str:
    """Return the text of a page, without blocks of code, and with dots for code in the text."""
    html = re.search(r"<article.*</article>", page.read_text(), re.DOTALL)
    assert html, page
    html_without_code = re.sub(r"<pre>.*?</pre>", "", html[0], flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"<code.*?</code>", "...", html_without_code, flags=re.DOTALL)))


def test_warnings_are_errors(tmp_path: Path) -> None:
    """Links to missing pages and headings, and pages outside the navigation. Without hooks, which are for our pages."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# A\n[x](missing.md) [x](#nowhere) [x](/absolute.md)\n")
    (tmp_path / "docs/other.md").write_text("# B\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"INHERIT: {ROOT}/mkdocs.yml\nhooks: []\nnav: [index.md]\n")
    result = build(config, tmp_path / "site")
    assert result.returncode == 1
    for message in ("'missing.md'", "no such anchor", "'/absolute.md'", "other.md"):
        assert message in result.stderr, result.stderr


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?https?:|<link(?![^>]*canonical)[^>]*href=["']?https?:"""
    )
    assert [path for path in site.rglob("*.html") if loads.search(path.read_text())] == []
    imports = re.compile(r"""(?:@import|url\()\s*["']?https?:""")
    assert [path for path in site.rglob("*.css") if imports.search(path.read_text())] == []


def test_anchors_are_those_of_github(site: Path) -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").as_posix()
        built = name.replace("README.md", "index.md").replace(".md", ".html")
        page = site / "zh" / built.replace(".zh.", ".") if ".zh." in name else site / built
        found = set(map(unescape, re.findall(r'<h\d id="([^"]*)"', page.read_text())))
        expected = {anchor for anchor in anchors(f"docs/{name}") if not re.search(r"-\d$", anchor)}  # repeated headings
        assert expected <= found, name


def test_markdown_is_converted_completely(site: Path) -> None:
    """Python-Markdown requires an empty line before a list or a table, which GitHub does not."""
    left = re.compile(r"^\s*(?:[-*] |\|.*\|$|#+ |```|:::).*|\]\([\w.#/]", re.MULTILINE)
    found = {
        path: match[0]
        for path in site.rglob("*.html")
        if path.name != "404.html"
        if (match := left.search(text_of(path)))
    }
    assert found == {}


def options_of(command: click.Command) -> Iterator[str]:
    for param in command.params:
        if isinstance(param, click.Option) and not {"--help", "--version"} & set(param.opts) and not param.hidden:
            yield param.opts[-1]
    for subcommand in command.commands.values() if isinstance(command, click.Group) else ():
        yield from options_of(subcommand)


@pytest.mark.parametrize(("name", "command"), [("shardgen", shardgen_commands), ("trainer", trainer_commands)])
def test_every_option_is_in_the_reference(name: str, command: click.Group, site: Path) -> None:
    terms = re.findall(r"<dt><code>(.*?)</code></dt>", (site / f"reference/{name}.html").read_text())
    listed = [re.findall(r"(?<![\w-])--?[a-z][\w-]*", unescape(term)) for term in terms]
    assert [option for option in options_of(command) if not any(option in names for names in listed)] == []
    assert len(terms) == len(list(options_of(command)))


def test_the_reference_has_help_texts_and_defaults(site: Path) -> None:
    html = (site / "reference/shardgen.html").read_text()
    assert "<dt><code>--size INTEGER</code></dt>\n<dd>HR edge in px.<br><em>default: 512</em></dd>" in html


def test_the_library_is_documented(site: Path) -> None:
    html = (site / "zh/reference/api.html").read_text()
    assert re.search(r"<b><code>patches_per_sample</code></b>.{0,300}number of consecutive steps", html, re.DOTALL)
    assert re.search(r'<a [^>]*href="#srshards.ArgumentError"', html)  # in the page of the same language


# ---- in a browser

PAGES = ("index", "zh/index", "reference/trainer", "reference/api", "explanation/performance", "decisions/index")


@DEVICES
def test_pages_in_a_browser(device: dict[str, object], scheme: str, site: Path, browser: Browser) -> None:
    """They fit the screen, log no errors and request only files of the site; images are there."""
    for name in PAGES:
        with opened(browser, site / f"{name}.html", scheme, folder=site, **device) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], name
            assert page.evaluate("[...document.images].filter((one) => !one.naturalWidth).map((one) => one.src)") == []
            assert page.evaluate("document.body.dataset.mdColorScheme") == ("slate" if scheme == "dark" else "default")


def results(page: Page, query: str) -> list[str]:
    """Type a query and return the addresses of what is found."""
    page.locator("[data-md-component=search-query]").fill(query)
    page.keyboard.press("End")  # the search reads the query when a key is released
    expected = page.locator(".md-search-result__item").first
    expected.wait_for()
    return [link.get_attribute("href") or "" for link in page.locator(".md-search-result__item > a").all()]


@pytest.mark.parametrize(
    ("start", "query", "found"),
    [
        ("index.html", "PatchLoader", "/reference/api.html"),
        ("how-to/training.html", "troubleshooting", "/how-to/troubleshooting.html"),
        ("zh/index.html", "可选依赖", "/zh/how-to/installation.html"),
        ("zh/how-to/installation.html", "PatchLoader", "/zh/reference/api.html"),
    ],
)
def test_search_finds_pages_in_the_language_of_the_page(
    start: str, query: str, found: str, site: Path, browser: Browser
) -> None:
    with opened(browser, site / start, folder=site, **WIDE) as page:
        links = results(page, query)
        assert any(link.startswith(site.as_uri() + found) for link in links), links
        assert {"/zh/" in link for link in links} == {start.startswith("zh/")}


def test_the_language_can_be_changed(site: Path, browser: Browser) -> None:
    with opened(browser, site / "how-to/installation.html", folder=site, **PHONE) as page:
        page.locator(".md-select button").click()
        page.get_by_role("link", name="简体中文").click()
        assert page.url == (site / "zh/how-to/installation.html").as_uri()
        assert page.locator("h1").inner_text().startswith("安装")
