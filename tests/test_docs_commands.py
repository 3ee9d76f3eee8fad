"""Run every command in the README and the docs as it is written, unless a comment in the page says why not.

Commands are blocks of sh, bash, console, python and yaml, and inline code that begins with `python -m`, `shardgen`,
`trainer`, `make` or `torchrun`. They are run in the order of the page, in a folder with photos, shards and a finished
run, with a few options appended that make them quick (`docs_commands.SHORTER`). Of make targets, the commands of this
project are run. Commands that are not run are checked for subcommands, options and targets that do not exist.
"""

import gc
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docs_commands
import pytest
from docs_commands import (
    ONCE,
    ROOT,
    Snippet,
    argv,
    commands,
    is_name,
    normal,
    pages,
    run,
    run_python,
    shortened,
    snippets,
    unknown_arguments,
)
from helpers import SMALL, generate, make_photo, make_photos, trainer
from PIL import Image

from tests.drill.s3_server import S3Server, environment, forget_stores
from trainer.catalogue import NETWORKS

SHELLS = ("sh", "bash", "console", "inline")
SHOWN = ("text", "json")  # output, not commands

DONE_ONCE: set[str] = set()  # shortened commands, of all pages

# Translations: their commands run after those of the original, without those that are the same.
TRANSLATED = {"README.zh-CN.md": "README.md"}
TRANSLATED |= {page: page.replace(".zh.md", ".md") for page in pages() if page.endswith(".zh.md")}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards and runs under the names that pages use. Read-only: `world` is a copy."""
    folder = tmp_path_factory.mktemp("layout")
    make_photos(folder / "OST", 48)
    for name in ("photos", "DIV2K_train_HR", "anime", "phone"):
        shutil.copytree(folder / "OST", folder / name)
    make_photos(folder / "DIV2K_valid_HR", 2)
    (folder / "exclude.txt").write_text("class0/img0.jpg\n")
    for name in ("photo.jpg", "chelsea.png", "Set5/a.png", "Set14/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(make_photo(36, 48, seed=1)).save(folder / name)
    generate(folder / "OST", folder / "shards", "-s", 2, 4)
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    for scale, name in ((2, "two"), (4, "lite-4x"), (4, "lite-4x-2")):
        shards = folder / f"shards/scale_{scale}x"
        result = trainer("--shards", shards, "--steps", 2, *SMALL, "--run", name, "--out", folder / "runs")
        assert result.code == 0, result.err
    return folder


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def world(layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the layout, which is the working directory and the home folder."""
    folder = tmp_path / "world"
    shutil.copytree(layout, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    standard = NETWORKS["standard"]
    one_block = replace(standard, arguments={**standard.arguments, "depth": 1})
    monkeypatch.setitem(NETWORKS, "standard", one_block)
    return folder


@pytest.fixture
def bucket(world: Path, store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`s3://bucket` with the photos and shards of `world`."""
    for name, value in environment(store.endpoint).items():
        monkeypatch.setenv(name, value)
    forget_stores()
    for path in sorted(path for name in ("photos", "shards") for path in (world / name).rglob("*") if path.is_file()):
        store.put("bucket", path.relative_to(world).as_posix(), path.read_bytes())
    yield
    forget_stores()


def run_snippets(snippets: list[Snippet], done: dict[str, list[str]]) -> None:
    """Run the snippets without a mark, and compare shown output with actual output.

    Commands in `done` are not run again: their output is that of before.
    """
    printed: list[str] = []
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets:
        if snippet.kind in SHELLS and "shardgen generate" in snippet.text:
            names = {"__name__": "__main__"}
            gc.collect()  # close the shards that earlier snippets and trainings have opened in this process
        if snippet.is_output:
            _compare(snippet, printed)
        if snippet.file:
            Path(snippet.file).write_text(snippet.text)
        if snippet.reason or snippet.kind in SHOWN:
            continue
        if snippet.kind == "python":
            printed = run_python(snippet.text, names).splitlines()
        elif snippet.kind in SHELLS:
            printed = []
            for command in commands(snippet.text):
                is_done = command in done or shortened(command) in DONE_ONCE
                if not is_done and not is_name(command):
                    try:
                        done[command] = run(command).splitlines()
                    except AssertionError as error:
                        pytest.fail(f"{snippet.location}: {error}")
                    if any(args <= {*argv(command)} for args in ONCE):
                        DONE_ONCE.add(shortened(command))
                printed += done.get(command, [])


def _compare(shown: Snippet, printed: list[str]) -> None:
    expected = ("", "...", "…", *map(normal, printed))
    missing = [line for line in shown.text.splitlines() if normal(line) not in expected]
    assert not missing, f"{shown.location}: these lines are not printed: {missing}; but\n" + "\n".join(printed)


def has_commands(page: str) -> bool:
    return any(not (snippet.reason or snippet.kind in SHOWN) for snippet in snippets(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if page not in TRANSLATED and has_commands(page)])
def test_commands_print_what_the_page_shows(page: str, world: Path, request: pytest.FixtureRequest) -> None:
    group = [page, *(other for other, of in TRANSLATED.items() if of == page and (ROOT / other).exists())]
    found = [snippet for name in group for snippet in snippets(name)]
    if any("s3://bucket" in snippet.text or "moto" in snippet.text for snippet in found if not snippet.reason):
        request.getfixturevalue("bucket")
    run_snippets(found, {})


@pytest.mark.parametrize("page", pages())
def test_subcommands_options_and_targets_exist(page: str) -> None:
    """Including those of commands that are not run."""
    for snippet in snippets(page):
        for command in commands(snippet.text) if snippet.kind in SHELLS else ():
            assert not (unknown := unknown_arguments(command)), f"{snippet.location}: unknown {unknown} in {command}"


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_marked(page: str) -> None:
    """Blocks have a known language, and marks belong to a command."""
    found = snippets(page)
    for snippet in found:
        known = snippet.kind in (*SHELLS, *SHOWN, "python") or (
            snippet.kind == "yaml" and (snippet.file or snippet.reason)
        )
        assert known, f"{snippet.location}: a {snippet.kind or 'block without a language'} is neither run nor marked"
    text = (ROOT / page).read_text()
    assert text.count("<!-- not run") == sum(snippet.reason is not None for snippet in found), f"{page}: a loose mark"
    indented = [
        line for line in text.splitlines() if line.startswith("    ") and docs_commands.is_command(line.strip())
    ]
    inside = "".join(snippet.text for snippet in found)
    assert not [line for line in indented if line.strip() not in inside], "put commands into ```sh blocks"


# ---- docs_commands itself


PAGE = """
Text with `shardgen verify shards` and `python -m trainer ...`, and `torchrun -m trainer`<!-- not run: a GPU -->.

| `make help` | says |

<!-- not run: takes an hour -->
```sh
python -m shardgen generate -i OST \\
    -o shards   # so
```

<!-- file: mine.yaml -->
```yaml
- blur
```

<!-- output -->
```text
whatever
```
"""


def test_snippets_finds_commands_and_marks() -> None:
    found = list(docs_commands._snippets("page.md", PAGE.splitlines()))
    assert [(snippet.line, snippet.kind, snippet.reason) for snippet in found] == [
        (2, "inline", None),
        (2, "inline", "a GPU"),
        (4, "inline", None),
        (7, "sh", "takes an hour"),
        (13, "yaml", None),
        (18, "text", None),
    ]
    assert commands(found[3].text) == ["python -m shardgen generate -i OST -o shards"]
    assert found[4].file == "mine.yaml" and found[5].is_output


@pytest.mark.parametrize(
    ("command", "unknown"),
    [
        ("python -m shardgen generate --sampel 0.1", ["--sampel"]),
        ("shardgen generat -i OST", ["generat"]),
        ("python -m trainer --modell lite", ["--modell"]),
        ("torchrun --nnodes 2 -m -- trainer --shard DIR", ["--shard"]),
        ("python -m benchmarks.bench_scale --round 3", ["--round"]),
        ("make shard", ["shard"]),
        ("python -m trainer evaluate --weights W --shards DIR", []),
        ("make shards SCALES=2", []),
    ],
)
def test_unknown_arguments_are_listed(command: str, unknown: list[str]) -> None:
    assert unknown_arguments(command) == unknown


@pytest.mark.slow
def test_failing_commands_fail_the_page(world: Path) -> None:
    for command, message in (
        ("python -m shardgen verify nowhere", "exit code 2"),
        ("python -m trainer --shards nowhere", "exit code 2"),
        ("python -c 'import sys; sys.exit(3)'", "exit code 3"),
        ("make shards INPUT=nowhere", "no such folder: nowhere"),
    ):
        with pytest.raises(pytest.fail.Exception, match=message):
            run_snippets([Snippet("page.md", 1, "sh", command)], {})


@pytest.mark.slow
def test_shown_lines_must_be_printed(world: Path) -> None:
    command = Snippet("page.md", 1, "sh", "python -m shardgen verify shards\n")
    matching = Snippet("page.md", 2, "text", "7 shards, 9 samples, 1 GB: all intact.\n", is_output=True)
    run_snippets([command, matching], {})
    with pytest.raises(AssertionError, match="not printed"):
        run_snippets([command, Snippet("page.md", 2, "text", "all good\n", is_output=True)], {})
