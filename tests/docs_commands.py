"""The commands of the documentation: found in its pages, and run in a folder that is laid out as they say.

What a page's author has to know, none of which a reader sees:

- `<!-- not run: REASON -->` on the line before a block, or right behind a command in the text
- `<!-- file: NAME -->` before a yaml block: later commands of the page find it under that name
- `<!-- output -->` before a text block: what the block of commands before it prints, but for numbers and left-out lines
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
from helpers import PATIENCE_S, run_cli, trainer

ROOT = Path(__file__).parent.parent

_MARK = re.compile(r"\s*<!-- (not run|file|output)(?:: (.*?))? -->")
_FENCE = re.compile(r"(\s*)```(\w*)\s*$")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?:\s*<!-- not run: (.+?) -->)?")
_COMMAND = re.compile(
    r"(?:\S*/)?(?:python -m (?:shardgen|trainer|benchmarks|tests\.drill)(?:\.\w+)*(?: |$)"
    r"|(?:shardgen|trainer|make|torchrun) )"
)

# So that a command takes a second instead of hours: these come last, and the last of an option counts. The page's own
# are parsed all the same. (words that the command has, words that it has not, what is added)
SHORTER = (
    ({"shardgen", "generate"}, set(), ("--workers", "0", "--force")),  # over the shards that are there already
    ({"shardgen", "generate"}, {"--auto", "--dry-run"}, ("--auto",)),  # instead of someone who says yes
    ({"shardgen", "generate"}, {"--tile-step"}, ("--size", "64")),
    ({"shardgen", "generate", "--tile-step", "480"}, set(), ("--size", "64", "--tile-step", "48")),
    (
        {"trainer", "--shards"},
        {"evaluate"},
        ("--steps", "2", "--batch-size", "2", "--patch-size", "32", "--val-samples", "1", "--workers", "0"),
    ),
    ({"trainer", "--cache-bytes", "200GB"}, set(), ("--cache-bytes", "1GB")),
    ({"shardgen", "report"}, set(), ("--samples", "4")),
)

# Commands that later commands of a page do not depend on: on the layout that pages share, they are run once for all.
ONCE = ({"shardgen", "report"}, {"trainer", "report"}, {"trainer", "export"})

# Programs of others that a test may start.
HARMLESS = {"python", "shardgen.sample_photos", "echo", "ls", "tar", "cat", "cp", "mkdir"}

# What pages write where a reader has something of his own.
PLACEHOLDERS = {
    "W": "runs/lite-4x/best.pth",
    "W2.pth": "runs/two/best.pth",
    "PHOTO": "photo.jpg",
    "OUT": "enlarged",
    "FOLDER": "shards",
    "DIR": "shards/scale_4x",
    "NAME": "lite-4x",
    "runs/NAME": "runs/lite-4x",
    "KEY": "000000000042",
}
_FOLDERS = {("--cache", "DIR"): "cache", ("--hr", "FOLDER"): "Set5", ("--cache", "/fast/disk"): "cache"}


class Snippet(NamedTuple):
    """A block or a command in the text. `kind` is the block's language, or `inline`; `reason` why it is not run."""

    page: str
    line: int
    kind: str
    text: str
    reason: str | None = None
    file: str | None = None
    is_output: bool = False

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """All that has commands for readers, those of one folder after the other."""
    found = [
        *ROOT.glob("README*.md"),
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("docs/decisions/*.md")),
        *sorted(ROOT.glob("benchmarks/**/README.md")),
    ]
    return [path.relative_to(ROOT).as_posix() for path in found]


@cache
def snippets(page: str) -> list[Snippet]:
    """In the page's order."""
    return list(_snippets(page, (ROOT / page).read_text().splitlines()))


def _snippets(page: str, lines: list[str]) -> Iterator[Snippet]:
    marks: dict[str, str] = {}
    paragraph: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        fence, mark = _FENCE.match(line), _MARK.fullmatch(line)
        if fence or mark or not line.strip() or line.lstrip().startswith("|"):
            yield from _inline(page, paragraph)
            paragraph = []
        if fence:
            end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
            text = "".join(f"{inner[len(fence[1]) :]}\n" for inner in lines[at + 1 : end])
            yield Snippet(
                page, at + 1, fence[2], text, marks.get("not run"), marks.get("file"), marks.get("output") == ""
            )
            marks, at = {}, end
        elif mark:
            marks[mark[1]] = mark[2] or ""
        elif line.startswith("    ") and not paragraph:
            pass  # a block without a language: drawings, not commands
        elif line.strip():
            paragraph.append((at + 1, line.strip()))
            if line.lstrip().startswith("|"):
                yield from _inline(page, paragraph)
                paragraph = []
        at += 1
    yield from _inline(page, paragraph)


def _inline(page: str, paragraph: list[tuple[int, str]]) -> Iterator[Snippet]:
    """The commands among what stands as code in a paragraph."""
    text = " ".join(line for _, line in paragraph)
    for code, reason in _CODE.findall(text):
        if is_command(code):
            words = code.split()[:2]
            line = next((number for number, line in paragraph if " ".join(words) in line), paragraph[0][0])
            yield Snippet(page, line, "inline", code.replace("\\|", "|") + "\n", reason or None)


def commands(text: str) -> list[str]:
    """The commands of a block, each on one line and without the comment behind it."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line]


def words_of(command: str) -> list[str]:
    """Program and arguments, `python -m NAME` as NAME; after torchrun's own options, those of what it starts."""
    words = shlex.split(command)
    if "torchrun" in words:
        words = [word for word in words[words.index("-m") + 1 :] if word != "--"]
    while len(words) > 2 and words[0].endswith("python") and words[1] == "-m":
        words = words[2:]
    return [words[0].rpartition("/")[2], *words[1:]] if words else []


def shortened(command: str) -> str:
    """The command as it is run: placeholders filled in, and what makes it quick behind it."""
    redirected = re.search(r" > \S+$", command)
    command = command[: redirected.start()] if redirected else command
    given = shlex.split(command)
    filled = [
        _FOLDERS.get((before, word), PLACEHOLDERS.get(word, word))
        for before, word in zip(["", *given], given, strict=False)
    ]
    known = {*words_of(command)}
    added = [word for has, has_not, more in SHORTER if has <= known and not has_not & known for word in more]
    return shlex.join([*filled, *added]) + (redirected[0] if redirected else "")


def run(command: str) -> str:
    """Run it here, where it is one of ours, else in a shell. What it printed; AssertionError when it failed.

    Of make, what it would start of ours; its other goals are tests, style and benchmarks.
    """
    if command == ". .venv/bin/activate":
        return ""  # what it is for: `python` is the right one
    if command.startswith("make "):
        return "".join(run(line) for line in commands(dry_make(command).stdout) if _is_ours(line))
    command = shortened(command)
    target = re.search(r" > (\S+)$", command)
    program, *args = words_of(command[: target.start()] if target else command)
    if program == "shardgen":
        done = run_cli(*args)
        code, out, err = done.returncode, done.stdout, done.stderr
    elif program == "trainer":
        code, out, err = trainer(*args)
    else:
        assert program in HARMLESS, f"{program} may do anything: say why it is not run"
        target = None
        code, out, err = _run_in_shell(command)
    assert code == 0, f"{command}\nended with {code}:\n{out}{err}"
    if target:
        Path(target[1]).write_text(out)
    return out + err


def _is_ours(command: str) -> bool:
    return bool(re.match(r"\S*python -m (shardgen|trainer)", command))


def _run_in_shell(command: str) -> tuple[int, str, str]:
    command = re.sub(r"^\S*python ", f"{shlex.quote(sys.executable)} ", command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["bash", "-c", command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, done.stdout, done.stderr


def dry_make(command: str) -> "subprocess.CompletedProcess[str]":
    """`make ...` as a shell reads it, but make only says what it would do."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    where = Path.cwd() if Path("Makefile").exists() else ROOT
    shell = command.replace("make ", "make -n ", 1)
    return subprocess.run(["bash", "-c", shell], cwd=where, env=environment, capture_output=True, text=True)


def run_python(text: str, names: dict[str, object]) -> str:
    """A block of Python, with the `names` that earlier blocks of its page have made, which it adds to."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "block", "exec"), names)
    return out.getvalue()


def unknown_words(command: str) -> list[str]:
    """Commands and options of ours that do not exist, whether the command is run or not."""
    program, *args = words_of(command) or [""]
    if program == "make":
        return [] if dry_make(command).returncode == 0 else args
    module = program if program.startswith("benchmarks.") else f"{program}.cli"
    if program not in ("shardgen", "trainer", "tests.drill") and not program.startswith("benchmarks."):
        return []
    found = import_module("tests.drill.__main__" if program == "tests.drill" else module)
    group: click.Command = getattr(found, "commands", None) or found.main
    while isinstance(group, click.Group) and args and not args[0].startswith("-"):
        if args[0] not in group.commands:
            return [args[0]]
        group, args = group.commands[args[0]], args[1:]
    options = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = [arg.partition("=")[0] for arg in args if re.match(r"--?[a-z]", arg)]
    return [name for name in given if name not in {*options, "--help", "-h"}]


def is_command(text: str) -> bool:
    """Whether it begins with one of the programs that are looked for; `shardgen ...` stands for any, and is none."""
    return bool(_COMMAND.match(text)) and "..." not in text and "…" not in text


def is_name(command: str) -> bool:
    """Whether it only names a command, as in "`shardgen generate` spreads over a cluster"."""
    program, *args = words_of(command) or [""]
    plain = not any(arg.startswith("-") for arg in args)
    return (
        plain
        and len(args) < 2
        and (program in ("shardgen", "trainer", "tests.drill") or program.startswith("benchmarks."))
    )


def normal(line: str) -> str:
    """A printed line without what differs from run to run: numbers, units of bytes, frames, spaces."""
    line = re.sub(r"[\u2500-\u257f]", " ", line)
    line = re.sub(r"\b[kMG]?B\b", "B", re.sub(r"[-+]?\d[\d,.]*(e[-+]\d+)?", "0", line))
    return " ".join(line.split())
