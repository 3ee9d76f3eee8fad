"""Every command in the README and the docs is run as it stands, or the page says (unseen) why not.

`docs_commands` finds them: blocks of sh, bash, console, python and yaml, and what stands as code in the text and
begins with `python -m`, `shardgen`, `trainer`, `make` or `torchrun`. They are run in the page's order, in a folder with
photos, shards and a finished run, with a few options behind them that make them quick (`docs_commands.SHORTER`). Of
`make`, what it would start of ours is run (a bare machine, `.venv` and the tests are what CI goes through). The words
of commands that are not run are looked up all the same: each must be an option, a command or a goal that there is.
"""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import docs_commands
import pytest
from docs_commands import (
    ONCE,
    ROOT,
    Snippet,
    commands,
    is_name,
    normal,
    pages,
    run,
    run_python,
    shortened,
    snippets,
    unknown_words,
    words_of,
)
from helpers import SMALL, generate, make_photo, make_photos, run_cli, trainer
from PIL import Image

from tests.drill.s3_server import S3Server, environment, forget_stores
from trainer.models.blocks import NAMED

SHELLS = ("sh", "bash", "console", "inline")
SHOWN = ("text", "json", "mermaid")  # what comes out, not what is typed

DONE_ONCE: set[str] = set()  # commands as they are run, on whichever page

# The same words in two languages: what the one has been through, the other need not.
TRANSLATED = {"README.zh-CN.md": "README.md"}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards and runs under the names that pages use. Not to be changed: it is copied."""
    folder = tmp_path_factory.mktemp("layout")
    make_photos(folder / "OST", 48)
    for name in ("photos", "DIV2K_train_HR", "anime", "phone"):
        shutil.copytree(folder / "OST", folder / name)
    (folder / "exclude.txt").write_text("class0/img0.jpg\n")
    for name in ("photo.jpg", "chelsea.png", "Set5/a.png", "Set14/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(make_photo(36, 48, seed=1)).save(folder / name)
    generate(folder / "OST", folder / "shards", "-s", 2, 4)
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    for scale, name in ((2, "two"), (4, "lite-4x"), (4, "lite-4x-2")):
        shards = folder / f"shards/scale_{scale}x"
        done = trainer("--shards", shards, "--steps", 2, *SMALL, "--run", name, "--out", folder / "runs")
        assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def world(layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the layout, where this process is and has its home."""
    folder = tmp_path / "world"
    shutil.copytree(layout, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    architecture, features, _, growth = NAMED["standard"]
    monkeypatch.setitem(NAMED, "standard", (architecture, features, 1, growth))  # one block instead of 23
    return folder


@pytest.fixture
def bucket(world: Path, store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`s3://bucket` with the photos and shards of the world."""
    for name, value in environment(store.endpoint).items():
        monkeypatch.setenv(name, value)
    forget_stores()
    for path in sorted(path for name in ("photos", "shards") for path in (world / name).rglob("*") if path.is_file()):
        store.put("bucket", path.relative_to(world).as_posix(), path.read_bytes())
    yield
    forget_stores()


def go_through(snippets: list[Snippet], done: set[str]) -> None:
    """Run what is not marked, but what was done; compare what is shown with what was printed."""
    printed: list[str] = []
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets:
        if snippet.kind in SHELLS and "shardgen generate" in snippet.text:
            names = {"__name__": "__main__"}
            gc.collect()  # which closes the sets that snippets and trainings in this process have opened
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
                        printed += run(command).splitlines()
                    except AssertionError as error:
                        pytest.fail(f"{snippet.place}: {error}")
                    done.add(command)
                    if any(words <= {*words_of(command)} for words in ONCE):
                        DONE_ONCE.add(shortened(command))


def _compare(shown: Snippet, printed: list[str]) -> None:
    there = [normal(line) for line in printed]
    wrong = [line for line in shown.text.splitlines() if normal(line) not in ("", "...", "…", *there)]
    assert not wrong, f"{shown.place}: these lines are not printed, but\n" + "\n".join(printed)


def has_commands(page: str) -> bool:
    return any(not (snippet.reason or snippet.kind in SHOWN) for snippet in snippets(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if page not in TRANSLATED and has_commands(page)])
def test_commands_do_what_the_page_says(page: str, world: Path, request: pytest.FixtureRequest) -> None:
    group = [page, *(other for other, of in TRANSLATED.items() if of == page and (ROOT / other).exists())]
    found = [snippet for name in group for snippet in snippets(name)]
    if any("s3://bucket" in snippet.text or "moto" in snippet.text for snippet in found if not snippet.reason):
        request.getfixturevalue("bucket")
    go_through(found, set())


@pytest.mark.parametrize("page", pages())
def test_every_command_has_words_that_there_are(page: str) -> None:
    """Also those that are not run."""
    for snippet in snippets(page):
        for command in commands(snippet.text) if snippet.kind in SHELLS else ():
            assert not unknown_words(command), f"{snippet.place}: there is no {unknown_words(command)} in {command}"


@pytest.mark.parametrize("page", pages())
def test_nothing_escapes(page: str) -> None:
    """Blocks are of a kind that is known, and marks belong to something."""
    found = snippets(page)
    for snippet in found:
        known = snippet.kind in (*SHELLS, *SHOWN, "python") or (
            snippet.kind == "yaml" and (snippet.file or snippet.reason)
        )
        assert known, (
            f"{snippet.place}: a {snippet.kind or 'block without a language'}, which is neither run nor marked"
        )
    text = (ROOT / page).read_text()
    assert text.count("<!-- not run") == sum(snippet.reason is not None for snippet in found), f"{page}: a loose mark"
    indented = [
        line for line in text.splitlines() if line.startswith("    ") and docs_commands.is_command(line.strip())
    ]
    inside = "".join(snippet.text for snippet in found)
    assert not [line for line in indented if line.strip() not in inside], "commands belong into ```sh blocks"


# ---- the finding and running itself


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


def test_commands_are_found_with_their_marks() -> None:
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
    ("command", "words"),
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
def test_words_that_there_are_not_are_named(command: str, words: list[str]) -> None:
    assert unknown_words(command) == words


@pytest.mark.slow
def test_a_command_that_fails_fails_the_test(world: Path) -> None:
    for command, message in (
        ("python -m shardgen verify nowhere", "ended with 2"),
        ("python -m trainer --shards nowhere", "ended with 2"),
        ("python -c 'import sys; sys.exit(3)'", "ended with 3"),
        ("make shards INPUT=nowhere", "no such folder: nowhere"),
    ):
        with pytest.raises(pytest.fail.Exception, match=message):
            go_through([Snippet("page.md", 1, "sh", command)], set())


@pytest.mark.slow
def test_what_is_shown_must_be_printed(world: Path) -> None:
    command = Snippet("page.md", 1, "sh", "python -m shardgen verify shards\n")
    go_through(
        [command, Snippet("page.md", 2, "text", "7 shards, 9 samples, 1 GB: all intact.\n", is_output=True)], set()
    )
    with pytest.raises(AssertionError, match="these lines are not printed"):
        go_through([command, Snippet("page.md", 2, "text", "all good\n", is_output=True)], set())


@pytest.mark.slow
def test_the_layout_is_what_pages_expect(world: Path) -> None:
    assert "48" in run_cli("inspect", "shards/scale_4x").stdout
