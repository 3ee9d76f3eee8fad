"""One search index for each language, so that results are in the language of the page; as JSON and, for pages opened as
files, as a script."""

import json
import logging
import re
from pathlib import Path

import jieba
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.pages import Page

jieba.setLogLevel(logging.WARNING)  # it reports reading its dictionary

_BASE = re.compile(r'(<script id="__config" type="application/json">\{[^<]*"base": ")([^"]*)"')


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Let pages of other languages than the default one look for the index in the folder of their language."""
    if not page.file.dest_uri.startswith(_folders(config)):
        return output
    changed, count = _BASE.subn(lambda match: f'{match[1]}{match[2].removesuffix("..").rstrip("/") or "."}"', output)
    assert count == 1, f"{page.file.dest_uri}: the theme has changed"
    return changed


@event_priority(-200)  # after the plugins offline and i18n
def on_post_build(config: MkDocsConfig) -> None:
    """Split the index that the search and i18n plugins wrote."""
    site = Path(config.site_dir)
    index = json.loads((site / "search/search_index.json").read_text())
    entries = index["docs"]
    for folder in _folders(config):
        own = [entry for entry in entries if entry["location"].startswith(folder)]
        _write(
            site / folder, {**index, "docs": [{**one, "location": one["location"].removeprefix(folder)} for one in own]}
        )
    _write(site, {**index, "docs": [entry for entry in entries if not entry["location"].startswith(_folders(config))]})


def _write(site: Path, index: dict[str, object]) -> None:
    folder = site / "search"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (folder / "search_index.json").write_text(text)
    (folder / "search_index.js").write_text(f"var __index = {text}")


def _folders(config: MkDocsConfig) -> tuple[str, ...]:
    """Return the folders of the languages other than the default one."""
    languages = config.plugins["i18n"].config["languages"]
    return tuple(f"{language.locale}/" for language in languages if not language.default)
