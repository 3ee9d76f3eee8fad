"""Find the commands in the documentation, and run them in a folder that contains the files which they mention.

Authors of pages use these comments, which readers do not see:

- `<!-- not run: REASON -->` on the line before a block, or directly after a command in the text
- `<!-- file: NAME -->` before a yaml block: saves it under that name for later commands of the page
- `<!-- output -->` before a text block: the output of the preceding commands; numbers may differ, lines may be left out
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
from helpers import TIMEOUT_S, run_cli, shell_environment, trainer

ROOT = Path(__file__).parent.parent

_MARK = re.compile(r"\s*<!-- (not run|file|output)(?:: (.*?))? -->")
_FENCE = re.compile(r"(\s*)```(\w*)\s*$")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?:\s*<!-- not run: (.+?) -->)?")
_COMMAND = re.compile(
    r"(?:\S*/)?(?:python -m (?:shardgen|trainer|benchmarks|tests\.(?:drill|release))(?:\.\w+)*(?: |$)"
    r"|(?:shardgen|trainer|make|torchrun) )"
)

# Options appended to commands so that they take seconds instead of hours; of a repeated option, the last value counts.
# (arguments that the command must contain, arguments that it must not contain, appended options)
SHORTER = (
    ({"shardgen", "generate"}, set(), ("--workers", "0", "--force")),  # the output folder contains shards
    ({"shardgen", "generate"}, {"--auto", "--dry-run"}, ("--auto",)),  # nobody answers the prompt
    ({"shardgen", "generate"}, {"--tile-step"}, ("--size", "64")),
    ({"shardgen", "generate", "--tile-step", "480"}, set(), ("--size", "64", "--tile-step", "48")),
    (
        {"trainer", "--shards"},
        {"evaluate"},
        ("--batch-size", "2", "--patch-size", "32", "--val-samples", "1", "--workers", "0"),
    ),
    ({"trainer", "--shards"}, {"evaluate", "--epochs"}, ("--steps", "2")),
    ({"trainer", "--epochs"}, set(), ("--epochs", "1")),
    ({"trainer", "--cache-bytes", "200GB"}, set(), ("--cache-bytes", "1GB")),
    ({"shardgen", "report"}, set(), ("--samples", "4")),
)

# Commands without side effects on later commands: run once, although several pages contain them.
ONCE = ({"shardgen", "report"}, {"trainer", "report"}, {"trainer", "export"}, {"trainer", "models"})

# Of the packages that `python -m` runs: the module with the command.
_MODULES_OF_COMMANDS = {
    "shardgen": ".cli",
    "trainer": ".cli",
    "tests.drill": ".__main__",
    "tests.release": ".__main__",
}

# External programs that tests may run.
HARMLESS = {"python", "shardgen.sample_photos", "echo", "ls", "tar", "cat", "cp", "mkdir", "cmp"}

# Placeholders in pages, and the files that tests use for them.
PLACEHOLDERS = {
    "W": "runs/lite-4x/best.pth",
    "W2.pth": "runs/two/best.pth",
    "PHOTO": "photo.jpg",
    "old": "photo.jpg",
    "OUT": "enlarged",
    "FOLDER": "shards",
    "DIR": "shards/scale_4x",
    "NAME": "lite-4x",
    "runs/NAME": "runs/lite-4x",
    "KEY": "000000000042",
}
_FOLDERS = {("--cache", "DIR"): "cache", ("--hr", "FOLDER"): "Set5", ("--cache", "/fast/disk"): "cache"}


class Snippet(NamedTuple):
    """A block, or a command in the text (kind `inline`; else the block's language); `reason` says why it is not run."""

    page: str
    line: int
    kind: str
    text: str
    reason: str | None = None
    file: str | None = None
    is_output: bool = False

    @property
    def location(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return the paths of all pages with commands for readers."""
    found = [
        *ROOT.glob("README*.md"),
        *(ROOT / name for name in ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")),
        ROOT / "examples" / "README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
        *sorted(ROOT.glob("benchmarks/**/README.md")),
    ]
    return [path.relative_to(ROOT).as_posix() for path in found]


def slug(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def snippets(page: str) -> list[Snippet]:
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
            pass  # an indented block: a drawing, not commands
        elif line.strip():
            paragraph.append((at + 1, line.strip()))
            if line.lstrip().startswith("|"):
                yield from _inline(page, paragraph)
                paragraph = []
        at += 1
    yield from _inline(page, paragraph)


def _inline(page: str, paragraph: list[tuple[int, str]]) -> Iterator[Snippet]:
    """Yield the commands among the inline code of a paragraph."""
    text = " ".join(line for _, line in paragraph)
    for code, reason in _CODE.findall(text):
        if is_command(code):
            start = " ".join(code.split()[:2])
            line = next((number for number, line in paragraph if start in line), paragraph[0][0])
            yield Snippet(page, line, "inline", code.replace("\\|", "|") + "\n", reason or None)


def commands(text: str) -> list[str]:
    """Return the commands of a block, each on one line and without its comment."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line]


def argv(command: str) -> list[str]:
    """Split into program and arguments; `python -m NAME` becomes NAME, and torchrun with its own options is removed."""
    args = shlex.split(command)
    if "torchrun" in args:
        args = [arg for arg in args[args.index("-m") + 1 :] if arg != "--"]
    while len(args) > 2 and args[0].endswith("python") and args[1] == "-m":
        args = args[2:]
    return [args[0].rpartition("/")[2], *args[1:]] if args else []


def shortened(command: str) -> str:
    """Fill in the placeholders of a command and append the options that make it quick."""
    redirected = re.search(r" > \S+$", command)
    command = command[: redirected.start()] if redirected else command
    args = shlex.split(command)
    filled = [
        _FOLDERS.get((before, arg), PLACEHOLDERS.get(arg, arg)) for before, arg in zip(["", *args], args, strict=False)
    ]
    present = {*argv(command)}
    added = [arg for has, has_not, more in SHORTER if has <= present and not has_not & present for arg in more]
    return shlex.join([*filled, *added]) + (redirected[0] if redirected else "")


def run(command: str) -> str:
    """Run a command and return its output; raise AssertionError if it fails.

    `shardgen` and `trainer` run in this process, others in a shell. Of make targets, only the `shardgen` and `trainer`
    commands are run: the other targets are tests, linters and benchmarks.
    """
    if command == ". .venv/bin/activate":
        return ""  # tests replace `python` by their interpreter
    if command.startswith("make "):
        lines = commands(dry_make(command).stdout)
        return "".join(run(line) for line in lines if re.match(r"\S*python -m (shardgen|trainer)", line))
    command = shortened(command)
    target = re.search(r" > (\S+)$", command)
    program, *args = argv(command[: target.start()] if target else command)
    if program == "shardgen":
        result = run_cli(*args)
        code, out, err = result.returncode, result.stdout, result.stderr
    elif program == "trainer":
        code, out, err = trainer(*args)
    else:
        assert program in HARMLESS, f"{program} is not in HARMLESS: mark the command as not run"
        target = None
        code, out, err = _run_in_shell(command)
    assert code == 0, f"{command}\nexit code {code}:\n{out}{err}"
    if target:
        Path(target[1]).write_text(out)
    return out + err


def _run_in_shell(command: str) -> tuple[int, str, str]:
    command = re.sub(r"^\S*python ", f"{shlex.quote(sys.executable)} ", command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    return result.returncode, result.stdout, result.stderr


def dry_make(command: str) -> "subprocess.CompletedProcess[str]":
    """Run `make ...` with `-n`, which prints the commands instead of running them."""
    folder = Path.cwd() if Path("Makefile").exists() else ROOT
    shell = ["bash", "-c", command.replace("make ", "make -n ", 1)]
    return subprocess.run(shell, cwd=folder, env=shell_environment(), capture_output=True, text=True)


def run_python(text: str, names: dict[str, object]) -> str:
    """Run a block of Python in the namespace `names` of its page, and return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "block", "exec"), names)
    return out.getvalue()


def unknown_arguments(command: str) -> list[str]:
    """Return subcommands, options and make targets that do not exist."""
    program, *args = argv(command) or [""]
    if program == "make":
        return [] if dry_make(command).returncode == 0 else args
    if not _is_ours(program):
        return []
    suffix = {"shardgen": ".cli", "trainer": ".cli", "tests.drill": ".__main__", "tests.release": ".__main__"}.get(
        program, ""
    )
    module = import_module(program + suffix)
    group: click.Command = getattr(module, "commands", None) or module.main
    while isinstance(group, click.Group) and args and not args[0].startswith("-"):
        if args[0] not in group.commands:
            return [args[0]]
        group, args = group.commands[args[0]], args[1:]
    options = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = [arg.partition("=")[0] for arg in args if re.match(r"--?[a-z]", arg)]
    return [name for name in given if name not in {*options, "--help", "-h"}]


def _is_ours(program: str) -> bool:
    return program in _MODULES_OF_COMMANDS or program.startswith("benchmarks.")


def is_command(text: str) -> bool:
    """Whether the text is a command of this project. `shardgen ...` is not: it means any of its commands."""
    return bool(_COMMAND.match(text)) and "..." not in text and "…" not in text


def is_name(command: str) -> bool:
    """Whether the text only mentions a command, as in "`shardgen generate` uses every node"."""
    program, *args = argv(command) or [""]
    return len(args) < 2 and not any(arg.startswith("-") for arg in args) and _is_ours(program)


def normal(line: str) -> str:
    """Normalise what differs between runs in a printed line: numbers, units of bytes, box drawing, spaces."""
    line = re.sub(r"[\u2500-\u257f]", " ", line)
    line = re.sub(r"\b[kMG]?B\b", "B", re.sub(r"[-+]?\d[\d,.]*(e[-+]\d+)?", "0", line))
    return " ".join(line.split())
