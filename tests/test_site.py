"""The sources of the documentation site: its navigation, its links and the reference of the library."""

import importlib.util
import re
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from docs_commands import ROOT

import srshards

DOCS = ROOT / "docs"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without calling the functions that it names."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """docs/hooks/pages.py, which mkdocs imports by its path."""
    spec = importlib.util.spec_from_file_location("pages", DOCS / "hooks/pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_nav(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    else:
        for part in item if isinstance(item, list) else item.values():
            yield from in_nav(part)


def test_every_page_is_in_the_navigation_once(config: dict[str, Any], hook: ModuleType) -> None:
    settings = SimpleNamespace(nav=config["nav"], docs_dir=str(DOCS))
    hook.on_config(settings)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(in_nav(settings.nav)) == sorted({page for page in pages if ".zh." not in page} | set(hook.SOURCES))


def test_decisions_are_in_the_navigation_by_number_after_their_index(config: dict[str, Any], hook: ModuleType) -> None:
    settings = SimpleNamespace(nav=config["nav"], docs_dir=str(DOCS))
    hook.on_config(settings)
    names = [name for name in in_nav(settings.nav) if name.startswith("decisions/")]
    assert names[:3] == ["decisions/README.md", "decisions/001-three-packages.md", "decisions/002-shard-assignment.md"]


def test_chinese_pages_are_translations() -> None:
    assert [path for path in DOCS.rglob("*.zh.md") if not path.with_name(f"{path.name[:-6]}.md").exists()] == []


def test_titles_in_the_navigation_are_translated(config: dict[str, Any]) -> None:
    def titles(item: Any) -> Iterator[str]:
        for part in item if isinstance(item, list) else [item]:
            if isinstance(part, dict):
                for title, content in part.items():
                    yield title
                    yield from titles(content)

    (i18n,) = (plugin["i18n"] for plugin in config["plugins"] if "i18n" in plugin)
    (chinese,) = (language for language in i18n["languages"] if language["locale"] == "zh")
    assert set(titles(config["nav"])) == set(chinese["nav_translations"])


def test_every_public_name_is_in_the_reference() -> None:
    named = re.findall(r"^::: srshards\.(\w+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(set(srshards.__all__) - {"__version__"})


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("how-to/a.md", "[b](b.md#c), [d](#d), [e](https://e/f.py)", "[b](b.md#c), [d](#d), [e](https://e/f.py)"),
        ("how-to/a.md", "[changes](../../CHANGELOG.md#unreleased)", "[changes](../changelog.md#unreleased)"),
        ("how-to/a.md", "the [README](../../README.md)", "the [README](../index.md)"),
        ("how-to/a.md", "[setup.py](../../setup.py)", "`setup.py`"),
        ("how-to/a.md", "[`x/y.py`](../../x/y.py#L3)", "`x/y.py`"),
        ("how-to/a.md", "[the loop](../../x/y.py)", "the loop (`x/y.py`)"),
        ("how-to/a.md", "`[x](../../x)`\n\n```\n[x](../../x)\n```\n", "`[x](../../x)`\n\n```\n[x](../../x)\n```\n"),
        ("how-to/a.md", "``[x](../../x)``, [`d`](../../d)", "``[x](../../x)``, `d`"),
        ("how-to/a.md", "~~~\n[x](../../x)\n~~~\n[d](../../d)", "~~~\n[x](../../x)\n~~~\n`d`"),
        ("how-to/a.md", "````\n```\n[x](../../x)\n```\n````\n[d](../../d)", "````\n```\n[x](../../x)\n```\n````\n`d`"),
        ("how-to/a.md", "> ```\n> [x](../../x)\n> ```\n", "> ```\n> [x](../../x)\n> ```\n"),
        ("how-to/a.md", "![x](../images/x.png)", "![x](../images/x.png)"),
        ("contributing.md", "[why](docs/decisions/README.md)", "[why](decisions/README.md)"),
        ("benchmarks.md", "[GPU](results/gpu.md), [speed](../docs/explanation/performance.md#gpu)",
         "GPU (`benchmarks/results/gpu.md`), [speed](explanation/performance.md#gpu)"),
    ],
)  # fmt: skip
def test_links_to_files_that_are_not_pages(page: str, text: str, expected: str, hook: ModuleType) -> None:
    assert converted(hook, page, text, repo_url=None) == expected


def test_links_lead_to_the_repository_if_it_is_known(hook: ModuleType) -> None:
    text = "[the loop](../../setup.py#L3), [all](../../examples), [page](b.md)"
    expected = "[the loop](https://x/y/blob/HEAD/setup.py#L3), [all](https://x/y/tree/HEAD/examples), [page](b.md)"
    assert converted(hook, "how-to/a.md", text, repo_url="https://x/y/") == expected


def test_links_to_headings_that_a_translated_page_lacks(hook: ModuleType) -> None:
    text = "[a](choosing-options.md#storage), [b](choosing-options.md#存储空间), [c](stores.md#shards-in-a-store)"
    assert converted(hook, "how-to/a.md", text, repo_url=None, language="en") == text
    expected = "[a](choosing-options.md), [b](choosing-options.md#存储空间), [c](stores.md#shards-in-a-store)"
    assert converted(hook, "how-to/a.md", text, repo_url=None, language="zh") == expected


def converted(hook: ModuleType, page: str, text: str, repo_url: str | None, language: str = "en") -> str:
    source = SimpleNamespace(file=SimpleNamespace(src_uri=page, locale_alternate_of=language), meta={})
    return hook.on_page_markdown(text, source, SimpleNamespace(repo_url=repo_url), None)
