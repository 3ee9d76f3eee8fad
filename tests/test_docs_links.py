"""Links of the documentation lead somewhere: files exist, headlines too, and pictures are pictures."""

import re
from functools import cache
from pathlib import Path

import pytest
from docs_commands import ROOT, pages
from PIL import Image

PAGES = [*pages(), "CHANGELOG.md"]
_LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")


@cache
def prose(page: str) -> str:
    """The page without blocks, comments and what stands as code, in which nothing is a link."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


@cache
def anchors(page: str) -> set[str]:
    """Those that GitHub gives to headlines: small letters, no punctuation, hyphens for spaces, a number if twice."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*?)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = next(n for n in range(100) if (f"{name}-{n}" if n else name) not in found)
        found.add(f"{name}-{number}" if number else name)
    return found


def links(page: str) -> list[tuple[bool, str]]:
    """Of every link to something of this project, whether it shows a picture, and where it leads."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    return [(bool(mark), to) for mark, to in _LINK.findall(text) if not re.match(r"\w+://|mailto:", to)]


def wrong_links(page: str) -> list[str]:
    """What is wrong with each link that leads nowhere."""
    wrong = []
    for is_picture, link in links(page):
        name, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.is_relative_to(ROOT) or not path.exists():
            wrong.append(f"{link}: no such file")
        elif is_picture:
            with Image.open(path) as picture:
                picture.verify()
        elif anchor and anchor not in anchors(path.relative_to(ROOT).as_posix()):
            wrong.append(f"{link}: no such headline")
    return wrong


def test_links_lead_somewhere() -> None:
    wrong = {page: found for page in PAGES if (found := wrong_links(page))}
    assert wrong == {}


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for _, link in links(page):
            path = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            name = path.relative_to(ROOT).as_posix()
            if name.endswith(".md") and path.exists() and name not in seen:
                waiting.append(name)
    assert set(pages()) - seen == set()


def test_links_that_lead_nowhere_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_docs_links.ROOT", tmp_path)
    (tmp_path / "a.md").write_text(
        "# One `two` (three)\n## Twice\n## Twice\n[x](b.md) [x](#one-two-three) [x](#twice-1) [x](#twice-2) "
        "`[x](c.md)` [x](https://d)\n```sh\n[x](e.md)\n```\n![x](f.jpg)\n"
    )
    assert wrong_links("a.md") == [
        "b.md: no such file",
        "#twice-2: no such headline",
        "f.jpg: no such file",
    ]


def test_headlines_in_chinese_have_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_docs_links.ROOT", tmp_path)
    (tmp_path / "zh.md").write_text("## 命令、图\n[图](#命令图)\n")
    assert not wrong_links("zh.md")
