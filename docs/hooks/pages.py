"""Pages of the site that are not files in docs/, and links to files that are not pages of the site."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parent.parent.parent

# Pages made of files outside of docs/.
SOURCES = {
    "examples.md": "examples/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "benchmarks.md": "benchmarks/README.md",
    "benchmarks-peers.md": "benchmarks/peers/README.md",
}
_PAGES = {
    **{source: page for page, source in SOURCES.items()},
    "README.md": "index.md",
    "README.zh-CN.md": "index.md",
}
# Code, in which nothing is a link, or a link: text, target and anchor.
_LINK = re.compile(
    r"(?P<code>^(?P<start>[ >]*(?:```+|~~~+)).*?^(?P=start)|(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)


def on_config(config: MkDocsConfig) -> None:
    """Replace `folder/*` in the navigation by the pages of the folder, README.md first."""
    docs = Path(config.docs_dir)
    config.nav = _expanded(config.nav, docs)


def _expanded(item: object, docs: Path) -> object:
    if isinstance(item, list):
        return [_expanded(part, docs) for part in item]
    if isinstance(item, dict):
        return {title: _expanded(part, docs) for title, part in item.items()}
    if isinstance(item, str) and item.endswith("/*"):
        pages = sorted((docs / item).parent.glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
        return [path.relative_to(docs).as_posix() for path in pages]
    return item


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of `SOURCES`."""
    for page in SOURCES:
        files.append(File(page, config.docs_dir, config.site_dir, config.use_directory_urls))


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Return the text of a page of `SOURCES`. Not by `File.generated`, because the plugin i18n recreates all files."""
    source = SOURCES.get(page.file.src_uri)
    return (ROOT / source).read_text() if source else None


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site; those to other files to `repo_url` or, if it is not set, nowhere."""
    name = page.file.src_uri
    if name in ("index.md", "index.zh.md"):
        page.meta["hide"] = ["navigation", "toc"]
    if name.startswith("decisions/") or name in SOURCES:
        page.meta["search"] = {"boost": 0.2}  # background, below the pages for users

    def replaced(match: re.Match[str]) -> str:
        if match["code"] or ":" in match["target"]:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(SOURCES.get(name, f"docs/{name}")), match["target"]))
        target = _PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if target:
            anchor = _translated(match["anchor"] or "", target, getattr(page.file, "locale_alternate_of", "en"))
            return f"[{match['text']}]({posixpath.relpath(target, posixpath.dirname(name) or '.')}{anchor})"
        if config.repo_url:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"[{match['text']}]({config.repo_url.rstrip('/')}/{kind}/HEAD/{path}{match['anchor'] or ''})"
        text = match["text"]
        return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    return _LINK.sub(replaced, markdown)


def _translated(anchor: str, page: str, language: str) -> str:
    """Return the anchor in the page that the site of a language has: none if a translated page lacks the heading."""
    path = ROOT / "docs" / f"{page.removesuffix('.md').removesuffix(f'.{language}')}.{language}.md"
    if not anchor or not path.exists():
        return anchor
    slug = slugify(case="lower")
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return anchor if anchor[1:] in {slug(heading, "-") for heading in headings} else ""
