"""The documentation site: its navigation, links, search and commands, and the pages in a browser. Built by `make docs`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import PHONE, WIDE, accessibility_violations, opened
from docs_commands import ROOT, slug
from playwright.sync_api import Browser, Page

import srshards

CONFIG = ROOT / "mkdocs.yml"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without importing what it names."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.load(CONFIG.read_text(), _Loader)


def build(folder: Path, config: Path = CONFIG) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", folder]
    # No proxy answers at this address: a build that downloads something fails.
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = build(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


# ---- the configuration


def in_nav(item: object) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    else:
        for part in item if isinstance(item, list) else item.values():  # type: ignore[attr-defined]
            yield from in_nav(part)


def test_every_page_is_in_the_navigation(config: dict[str, Any]) -> None:
    named = set(in_nav(config["nav"]))
    assert "decisions/*" in named
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    found = {page for page in pages if not page.endswith(".zh.md") and not page.startswith("decisions/")}
    assert found <= named
    outside = {"changelog.md", "contributing.md", "benchmarks.md", "benchmarks-peers.md"}
    assert named - found == {"decisions/*"} | outside


def test_every_chinese_page_translates_a_page() -> None:
    for path in (ROOT / "docs").rglob("*.zh.md"):
        assert path.with_name(path.name.replace(".zh.md", ".md")).exists(), path


def test_every_public_name_is_in_the_reference() -> None:
    named = re.findall(r"^::: srshards\.(\w+)$", (ROOT / "docs/reference/api.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(set(srshards.__all__) - {"__version__"})


# ---- the built pages


pytestmark = pytest.mark.slow
