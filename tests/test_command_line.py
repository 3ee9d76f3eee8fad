"""The command line: help, completion, suggestions, colours, narrow terminals, closed pipes."""

import contextlib
import fcntl
import importlib
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem, ShellComplete
from click.testing import CliRunner
from helpers import SMALL, TIMEOUT_S, generate, make_photos, run_cli, run_program, shell_environment, trainer
from PIL import Image

from shardgen.cli import commands as shardgen
from shardgen.planning.config import METHODS
from shardgen.sample_photos import main as sample_photos
from srshards.process.fork_server import may_use_workers
from srshards.terminal.text import Bar, fitted
from tests.drill.__main__ import main as drill
from tests.release.__main__ import main as release
from trainer.catalogue import NETWORKS
from trainer.cli import commands as trainer_commands

ROOT = Path(__file__).parent.parent
BENCHMARKS = {path.stem: path.read_text() for path in sorted((ROOT / "benchmarks").glob("*.py"))}
PROGRAMS: dict[str, click.Command] = {
    "python -m shardgen": shardgen,
    "python -m trainer": trainer_commands,
    "python -m tests.drill": drill,
    "python -m tests.release": release,
    "python -m shardgen.sample_photos": sample_photos,
    **{
        f"python -m benchmarks.{name}": importlib.import_module(f"benchmarks.{name}").main
        for name, code in BENCHMARKS.items()
        if "@click.command" in code
    },
}
# Scripts that benchmarks start, which use argparse because it is faster to import than click.
ARGPARSE_MODULES = [name for name, code in BENCHMARKS.items() if "ArgumentParser(" in code]


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield the command and all its subcommands with their command paths."""
    yield name, command
    if isinstance(command, click.Group):
        for subname, subcommand in sorted(command.commands.items()):
            yield from walk(f"{name} {subname}", subcommand)


COMMANDS = dict(pair for name, command in PROGRAMS.items() for pair in walk(name, command))


def program_of(path: str) -> str:
    return next(name for name in PROGRAMS if f"{path} ".startswith(f"{name} "))


def help_of(path: str, columns: int = 80) -> str:
    program = program_of(path)
    args = [*path.removeprefix(program).split(), "--help"]
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(PROGRAMS[program], args, prog_name=program)
    assert result.exit_code == 0, result.output
    return result.output


def examples_of(text: str) -> list[str]:
    """Return the commands below `Example:`, one per line."""
    block = re.search(r"^  Examples?:\n((?:    \S.*\n)+)", text, re.MULTILINE)
    return [line.strip() for line in block[1].splitlines()] if block else []


# ---- help


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_valid_examples(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    invoked: list[click.Command] = []
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: invoked.append(self))
    examples = examples_of(help_of(path))
    assert examples, f"`{path} --help` has no example"
    program = program_of(path)
    for example in examples:
        assert f"{example} ".startswith(f"{path} "), example
        command = example.removeprefix(program).partition(" > ")[0]
        PROGRAMS[program].main(shlex.split(command), prog_name=program, standalone_mode=False)
        assert invoked[-1] is COMMANDS[path] or isinstance(COMMANDS[path], click.Group)


@pytest.mark.parametrize("name", ARGPARSE_MODULES)
def test_help_of_scripts_started_by_benchmarks_has_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        module.parse_arguments()
    example = re.search(rf"Example: python -m benchmarks\.{name} (.+)", capsys.readouterr().out)
    assert example
    monkeypatch.setattr(sys, "argv", [name, *shlex.split(example[1])])
    module.parse_arguments()


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_the_terminal(path: str, columns: int) -> None:
    text = help_of(path, columns)
    options = text[text.index("\nOptions:") :].partition("\nCommands:")[0].splitlines()[2:]
    for line in text.splitlines():
        is_example = line.strip() in examples_of(text)  # not wrapped, so that it can be copied
        is_one_word = " " not in re.sub(r"^ *(-\w, )?(--)?[\w-]+ ?", "", line).strip()
        assert len(line) <= columns or is_example or is_one_word or line.startswith("Usage:"), line
    if columns == 40:  # descriptions are below their options, not to the right of them
        assert all(re.match(r" {2,8}\S", line) for line in options if line)


def test_importing_the_commands_does_not_patch_click() -> None:
    assert click.Context.formatter_class is click.HelpFormatter


@pytest.mark.parametrize("columns", [40, 80])
def test_command_summaries_are_not_truncated(columns: int) -> None:
    for program in ("python -m shardgen", "python -m trainer"):
        commands = help_of(program, columns).partition("\nCommands:\n")[2]
        assert commands and "..." not in commands


@pytest.mark.parametrize("path", [path for path in COMMANDS if "benchmarks" not in path])
def test_h_is_short_for_help(path: str) -> None:
    program = program_of(path)
    result = CliRunner().invoke(PROGRAMS[program], [*path.removeprefix(program).split(), "-h"], prog_name=program)
    assert result.exit_code == 0 and result.output == help_of(path)


def test_shardgen_without_arguments_shows_its_help() -> None:
    result = run_cli()
    assert result.returncode == 2 and examples_of(result.stderr) and "generate" in result.stderr


def test_versions() -> None:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "srshards" / "__init__.py").read_text())
    assert version
    assert run_cli("--version").stdout == f"shardgen, version {version[1]}\n"
    assert trainer("--version").out == f"trainer, version {version[1]}\n"


@pytest.mark.parametrize("path", ["", "generate ", "recipe show "])
def test_usage_shows_the_module_to_run(path: str) -> None:
    assert run_cli(*path.split(), "-h").stdout.startswith(f"Usage: python -m shardgen {path}[OPTIONS]")
    assert f"Try 'python -m shardgen {path}--help' for help." in run_cli(*path.split(), "--nope").stderr
    assert trainer("-h").out.startswith("Usage: python -m trainer [OPTIONS]")


def test_help_shows_the_syntax_of_scales() -> None:
    assert re.search(
        r"-s, --scales N +One or more of 2 to 8: 2 3 4, or 2,3,4\.", help_of("python -m shardgen generate")
    )


@pytest.mark.parametrize("command", ["upscale", "export"])
def test_help_names_all_weights_that_a_command_takes(command: str) -> None:
    text = " ".join(help_of(f"python -m trainer {command}").split())
    assert "best.pth of a run, or other weights of a network from RGB to RGB." in text and "grey" not in text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trainer --shards a --shards b", "--shards a and --shards b: pass one of them"),
        ("trainer evaluate --weights w --shards a --shards b", "--shards a and --shards b: pass one of them"),
        ("shardgen generate -i a --input b", "--input a and --input b: pass one of them"),
    ],
)
def test_folders_to_read_are_not_ignored(command: str, message: str) -> None:
    result = run_program(*command.split())
    assert result.code == 2 and message in result.err


def test_error_messages_escape_control_characters(tmp_path: Path) -> None:
    result = run_cli("verify", tmp_path / "two\nlines\x1b[31m")
    assert result.returncode == 2 and "two\\nlines\\x1b[31m" in result.stderr
    assert result.stderr.count("\n") == 1 and "\x1b" not in result.stderr


# ---- completion


def completions(program: str, *args: str) -> list[CompletionItem]:
    """Return the completions of the last argument, which may be empty."""
    complete = ShellComplete(PROGRAMS[program], {}, program, "_COMPLETE")
    return complete.get_completions(list(args[:-1]), args[-1])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("shardgen generate --method ''", list(METHODS)),
        ("shardgen generate --codec p", ["png"]),
        ("shardgen generate --degradation real", ["realesrgan"]),
        ("shardgen preview --recipe ''", ["realesrgan", "bsrgan-light"]),
        ("shardgen recipe show b", ["bsrgan-light"]),
        ("shardgen recipe s", ["show", "steps"]),
        ("shardgen generate -s ''", list("2345678")),
        ("shardgen generate -s 2 3 ''", list("2345678")),
        ("shardgen generate -s 2 --val", ["--val", "--val-fraction"]),
        ("shardgen pack --val", ["--val", "--val-lr", "--val-up", "--val-fraction"]),
        ("shardgen generate -s 2 --size 64 ''", []),
        ("shardgen gen", ["generate"]),
        ("trainer --model ''", list(NETWORKS)),
        ("trainer --loss c", ["charbonnier", "colour", "contextual"]),
        ("trainer --preset real", ["realesrnet", "realesrgan"]),
        ("trainer preset show c", ["compact-finetune"]),
        ("trainer eval", ["evaluate"]),
        ("trainer evaluate --split ''", ["train", "val"]),
        ("trainer --shards x --patches", ["--patches-per-sample"]),
        ("trainer no-such-command ex", ["export"]),
    ],
)
def test_arguments_are_completed(command: str, expected: list[str]) -> None:
    program, *args = shlex.split(command)
    assert [item.value for item in completions(f"python -m {program}", *args)] == expected


@pytest.mark.parametrize(
    "path", [path for path in COMMANDS if program_of(path) in ("python -m shardgen", "python -m trainer")]
)
def test_files_and_folders_are_completed_by_the_shell(path: str) -> None:
    context = click.Context(COMMANDS[path])
    for parameter in COMMANDS[path].params:
        if parameter.type.name in ("address", "path", "file", "directory"):
            kinds = {item.type for item in parameter.shell_complete(context, "x")}
            assert kinds in ({"file"}, {"dir"}), parameter
    recipe = completions("python -m shardgen", "recipe", "check", "mine.y")
    assert [(item.value, item.type) for item in recipe] == [("mine.y", "file")]


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", "~/.bashrc"), ("zsh", "~/.zshrc"), ("fish", "~/.config/fish/config.fish")]
)
def test_make_completion_prints_working_lines(shell: str, file: str, tmp_path: Path) -> None:
    """With this virtual environment, so that make installs nothing."""
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    (venv / ".installed").touch()
    environment = {**shell_environment(), "SHELL": f"/usr/bin/{shell}", "PYTHONPATH": str(ROOT)}
    output = run_text(["make", "--silent", "completion", f"VENV={venv}"], environment)
    assert f"Add these lines to {file}" in output
    lines = [line for line in output.splitlines() if line.startswith("source ")]
    scripts = [Path(shlex.split(line)[1]) for line in lines[:2]]
    assert [script.name for script in scripts] == [f"shardgen.{shell}", f"trainer.{shell}"]
    assert Path(shlex.split(lines[2])[1]).parent == venv / "bin"
    for script in scripts:
        assert f"_{script.stem.upper()}_COMPLETE={shell}_complete" in script.read_text()
    if shell == "bash":
        _assert_bash_completes(lines[:2], {**environment, "PATH": f"{venv}/bin:{os.environ['PATH']}"})


def _assert_bash_completes(lines: list[str], environment: dict[str, str]) -> None:
    """Source the lines in bash and call the registered completion functions."""
    code = (
        "\n".join(lines)
        + """
    compopt() { echo "compopt $1 $2"; }  # in bash, available only during completion
    try() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        set -- $(complete -p "$1")  # complete -o nosort -F FUNCTION PROGRAM
        "$5" "${COMP_WORDS[0]}"
        echo "${COMPREPLY[*]}"
    }
    try shardgen insp; try shardgen generate --codec ''; try shardgen verify ''
    try trainer --model ''; try trainer evaluate --we
    """
    )
    output = run_text(["bash", "--norc", "-c", code], environment)
    expected = ["inspect", "npy png webp tlc", "compopt -o default", "", " ".join(NETWORKS), "--weights"]
    assert output.splitlines() == expected


def run_text(command: list[str], environment: dict[str, str]) -> str:
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0 and result.stderr == "", result
    return result.stdout


def test_help_and_completion_do_not_import_pytorch() -> None:
    code = "import sys, trainer.cli; print([name for name in ('torch', 'cv2', 'altair', 'ray') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert result.stdout == "[]\n"


WITHOUT_COMPILER = """
import contextlib, sys
from trainer.cli import main

shards, photo, out = sys.argv[1:]
weights = f"{out}/r/best.pth"
small = ("--model", "ultra_lite", "--patch-size", "16", "--batch-size", "2", "--steps", "2", "--workers", "0")
for args in (
    ("--shards", shards, "--out", out, "--run", "r", "--device", "cpu", *small),
    ("--out", out, "--run", "r", "--resume"),
    ("evaluate", "--weights", weights, "--shards", shards, "--device", "cpu"),
    ("upscale", "--weights", weights, photo, "-o", f"{out}/large", "--device", "cpu"),
):
    try:
        with contextlib.redirect_stdout(sys.stderr):
            main(args)
    except SystemExit as end:
        assert end.code == 0
    print([name for name in ("torch._dynamo", "sympy", "matplotlib", "pandas", "altair") if name in sys.modules])
"""


@pytest.mark.slow
def test_commands_start_without_slow_imports(photos: Path, shards: Path, tmp_path: Path) -> None:
    """PyTorch's compiler and SymPy, which it imports for optimisers and for the meta device, take over a second."""
    photo = min(photos.rglob("*.png"))
    args = (shards / "scale_2x", photo, tmp_path)
    command = [sys.executable, "-c", WITHOUT_COMPILER, *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.stdout == 4 * "[]\n", result.stderr
    assert (tmp_path / "large" / f"{photo.stem}_2x.png").exists(), result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--shards x", True),
        ("--shards x --workers 2", True),
        ("--shards x --workers 0", False),
        ("--workers=0 --shards x", False),
        ("--shards x --steps 0 --workers=10", True),
    ],
)
def test_no_fork_server_is_started_without_workers(arguments: str, expected: bool) -> None:
    assert may_use_workers(arguments.split()) is expected


# ---- suggestions


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("shardgen generat", "No such command 'generat'. Did you mean 'generate'?"),
        ("shardgen recipe shwo", "Did you mean 'show'?"),
        ("shardgen generate --methd area", "'--method'"),
        (
            "shardgen generate --method cubik",
            "'cubik' is not one of 'nearest', 'linear', 'cubic', 'area', 'lanczos', 'matlab'. Did you mean 'cubic'?",
        ),
        ("shardgen generate --codec pgn", "Did you mean 'png'?"),
        ("shardgen generate --engine rai", "Did you mean 'ray'?"),
        ("shardgen unpack x -o y --split vall", "Did you mean 'val'?"),
        ("shardgen recipe show realesrgn", "unknown name 'realesrgn'; did you mean 'realesrgan'?"),
        ("trainer evaluat", "unknown command evaluat; did you mean 'evaluate'?"),
        ("trainer upscal x.png", "unknown command upscal; did you mean 'upscale'?"),
        ("trainer evaluate --split vall", "Did you mean 'val'?"),
        ("trainer --los l1", "'--loss'"),
        ("trainer evaluate --weigths x", "'--weights'"),
    ],
)
def test_closest_match_is_suggested(command: str, message: str) -> None:
    result = run_program(*command.split())
    assert result.code == 2 and message in result.err and result.out == ""


@pytest.mark.parametrize(
    "command",
    [
        "shardgen qqqq",
        "shardgen generate --codec qqqq",
        "shardgen generate --qqqq",
        "shardgen recipe show qqqq",
        "trainer qqqq",
        "trainer --model qqqq",
    ],
)
def test_nothing_is_suggested_without_a_close_match(command: str) -> None:
    stderr = run_program(*command.split()).err
    assert "qqqq" in stderr and "did you mean" not in stderr.lower()


def test_folder_argument_suggests_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exports").mkdir()
    assert "unknown command exports; to train on it, pass --shards exports" in trainer("exports").err


# ---- empty paths


EMPTY = "the path is empty; expected a folder or a file, or . for the working directory"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("shardgen generate --input ''", "'-i' / '--input'"),
        ("shardgen generate --output ''", "'-o' / '--output'"),
        ("shardgen generate --exclude ''", "'--exclude'"),
        ("shardgen inspect ''", "'[FOLDER]'"),
        ("shardgen inspect file://", "'[FOLDER]'"),
        ("shardgen unpack x -o ''", "'-o' / '--output'"),
        ("shardgen report x --output=", "'-o' / '--output'"),
        ("trainer --shards ''", "'--shards'"),
        ("trainer --out ''", "'--out'"),
        ("trainer --cache ''", "'--cache'"),
        ("trainer --init ''", "'--init'"),
        ("trainer --config ''", "'--config'"),
        ("trainer evaluate --weights ''", "'--weights'"),
        ("trainer evaluate --hr ''", "'--hr'"),
        ("trainer export --output ''", "'-o' / '--output'"),
        ("trainer report x --output ''", "'-o' / '--output'"),
        ("trainer upscale x --output ''", "'-o' / '--output'"),
    ],
)
def test_empty_paths_are_rejected(command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_program(*shlex.split(command))
    assert result.code == 2 and f"Invalid value for {option}: {EMPTY}" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["generate", "-i", "{photos}", "--degradation", ""], ["recipe", "check", ""]])
def test_empty_recipe_names_are_rejected(args: list[str], photos: Path) -> None:
    result = run_cli(*(arg.format(photos=photos) for arg in args))
    assert result.returncode == 2
    assert result.stderr == "Error: recipe: unknown name ''; expected one of realesrgan, bsrgan-light, or a YAML file\n"


def test_empty_paths_in_a_config_file_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("out: ''\n")
    result = trainer("--config", tmp_path / "c.yaml", "--shards", tmp_path)
    assert (result.code, result.err) == (2, f"Error: {tmp_path / 'c.yaml'}: out: {EMPTY}\n")


def test_sample_photos_rejects_empty_paths() -> None:
    result = CliRunner().invoke(sample_photos, [""])
    assert result.exit_code == 2 and EMPTY in result.output


# ---- terminals


def in_terminal(arguments: list[object], folder: Path, columns: int, **environment: str) -> str:
    """Run Python with these arguments in a terminal with this many columns, and return everything it writes there."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    child = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**plain, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    output = bytearray()
    with contextlib.suppress(OSError):  # EIO: no process has the terminal open any more
        while chunk := os.read(master, 65536):
            output += chunk
    os.close(master)
    text = output.decode()
    assert child.wait(TIMEOUT_S) == 0, text
    return text


def drawn(output: str) -> list[str]:
    """Return every line that the terminal has shown, without styles."""
    without_style = re.sub(r"\x1b\[[0-9;]*m", "", output)
    return [line.rstrip() for line in re.split(r"[\r\n]+", without_style)]


COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, and shards of them in `s`: a short name for narrow terminals."""
    folder = tmp_path_factory.mktemp("data")
    make_photos(folder / "photos", 24)
    generate(folder / "photos", folder / "s", "-s", 2, "--variants", 2, "--degradation", "bsrgan-light")
    return folder


INSPECTED = [["s"], ["s", "--shard", "train-000000"], ["s", "--sample", "000000000002"]]
# Shows them in one process. A command ends with SystemExit, also if it succeeds.
INSPECT = f"""
import shardgen.cli
for args in {INSPECTED}:
    try:
        shardgen.cli.main(["inspect", *args])
    except SystemExit as end:
        assert not end.code, end.code
"""


@pytest.mark.parametrize("columns", [30, 40, 300])
@pytest.mark.slow
def test_tables_fit_the_terminal(columns: int, data: Path) -> None:
    lines = drawn(in_terminal(["-c", INSPECT], data, columns, NO_COLOR="1"))
    assert max(map(len, lines)) <= columns
    for text in ("000000000002", "256,000,000", "train-000000", "bsrgan-light", "class0/img3.jpg"):
        assert any(text in line for line in lines), text
    cells = [cell.strip() for line in lines if line.startswith("│") for cell in line.strip("│").split("│")]
    assert not any(len(cell) == 1 and cell.isalpha() for cell in cells)
    if columns == 300:
        assert any("┃ key" in line and "PSNR of up" in line for line in lines)


@pytest.mark.parametrize("columns", [30, 40, 300])
@pytest.mark.slow
def test_generating_fits_the_terminal(columns: int, data: Path) -> None:
    args = ["-i", "photos", "-o", f"o{columns}", "-s", 2, 4, "--size", 64, "--workers", 0, "--auto"]
    output = in_terminal(["-m", "shardgen", "generate", *args], data, columns, NO_COLOR="1")
    lines = drawn(output)
    assert max(map(len, lines)) <= columns and not COLOUR.search(output)
    assert any(line.startswith("100%") and "24/24" in line for line in lines)
    assert any(re.match(r"Disk +\d+\.\d MB needed", line) for line in lines)
    assert ("█" in output) == (columns == 300)
    if columns == 30:
        verified = drawn(in_terminal(["-m", "shardgen", "verify", f"o{columns}"], data, columns))
        assert max(map(len, verified)) <= columns and "48 samples" in " ".join(verified)


@pytest.mark.slow
def test_training_and_evaluation_fit_the_terminal(data: Path) -> None:
    args = ["--shards", "s/scale_2x", *SMALL, "--steps", 4, "--val-every", 4, "--out", "runs", "--run", "r", "--verify"]
    output = in_terminal(["-m", "trainer", *args], data, 40, NO_COLOR="1")
    lines = drawn(output)
    assert max(map(len, lines)) <= 40 and not COLOUR.search(output)
    assert any(re.match(r"100% 4/4, 00:00 left", line) for line in lines)
    assert sum(bool(re.fullmatch(r"network +\d+\.\d\d dB +-?\d\.\d{4}", line)) for line in lines) == 2
    args = ["evaluate", "--weights", "runs/r/best.pth", "--shards", "s/scale_2x"]
    output = in_terminal(["-m", "trainer", *args], data, 40)
    assert max(map(len, drawn(output))) <= 40
    assert sum(line.startswith("bicubic") for line in drawn(output)) == 2
    args = ["upscale", "--weights", "runs/r/best.pth", "photos/class0/img0.jpg", "photos/class0/img3.jpg", "-o", "up"]
    lines = drawn(in_terminal(["-m", "trainer", *args], data, 60))
    assert max(map(len, lines)) <= 60
    with Image.open(data / "photos" / "class0" / "img0.jpg") as photo:
        total = f"{2 * photo.width * photo.height / 1000:.1f}k"
    assert any(re.match(rf" +0%.* 0\.00/{total} ", line) for line in lines), "not shown at the start"
    assert any(line.startswith(f"100% {total}/{total}, 00:00 left") and line.endswith("2/2 photos") for line in lines)
    assert [line[:15] for line in lines if line.startswith("up/")] == ["up/img0_2x.png ", "up/img3_2x.png "]


def test_dumb_terminals_get_plain_lines(data: Path) -> None:
    args = ["-i", "photos", "-o", "dumb", "-s", 2, "--size", 64, "--workers", 0, "--auto"]
    for command in (["generate", *args], ["inspect", "dumb"]):
        output = in_terminal(["-m", "shardgen", *command], data, 80, TERM="dumb")
        assert "\x1b" not in output and "\r" not in output.replace("\r\n", "\n")
        if command[0] == "generate":
            assert re.search(r"^24/24 photos, \d+ photos/s, \d+ MB/s\r$", output, re.MULTILINE)


def test_pipes_get_no_escape_sequences(data: Path) -> None:
    result = run_cli("inspect", "s", cwd=data, env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0 and "\x1b" not in result.stdout + result.stderr
    args = ("-i", "photos", "-o", "piped", "-s", 2, "--size", 64, "--workers", 0, "--auto")
    result = run_cli("generate", *args, cwd=data, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0 and "\x1b" not in result.stdout + result.stderr and "\r" not in result.stderr


def test_force_color_breaks_nothing(data: Path) -> None:
    forced = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    assert run_cli("inspect", "s", cwd=data, env=forced).returncode == 0
    assert run_cli("recipe", "show", cwd=data, env=forced).returncode == 0


FIGURES = "loss 0.0312, lr 4.0e-03, 72 patches/s, data wait 1.2%, best 28.77 dB"


@pytest.mark.parametrize("columns", [24, 30, 40, 60, 80, 120, 300])
def test_progress_bar_shrinks_before_its_figures(columns: int) -> None:
    options = {"unit": "it", "prefix": "", "ascii": False, "postfix": FIGURES, "unit_scale": False, "rate": 3.2}
    line = Bar.format_meter(35, 700, 12.3, ncols=columns, **options)
    assert len(line) <= columns and "35/700" in line and "5%" in line
    assert ("█" in line) == (columns == 300)  # no room for the bar in fewer columns
    assert (FIGURES in line) == (columns >= 120) and ("loss 0.0312" in line) == (columns >= 60)
    if columns < 120:  # complete figures, in order
        shown = line.split(", ")[3:]
        assert shown == FIGURES.split(", ")[: len(shown)]


def test_lines_are_wrapped_only_in_terminals() -> None:
    with open(os.devnull, "w") as null:
        assert fitted("a word " * 100, null) == "a word " * 100


# ---- closed pipes


@pytest.mark.parametrize("args", ["shardgen recipe steps", "shardgen inspect s --shard train-000000", "trainer -h"])
def test_closed_pipes_cause_no_traceback(args: str, data: Path) -> None:
    code = f"{shlex.quote(sys.executable)} -m {args} | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", code], cwd=data, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == "" and result.stderr == ""


# ---- arguments


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "--model lite evaluate --weights x",
            "--model before evaluate is an option of training; omit it: evaluate has no such option",
        ),
        (
            "--device cpu evaluate --weights x",
            "--device before evaluate is an option of training; pass it after evaluate",
        ),
        ("", "pass the shards to train on, e.g. --shards shards/scale_4x"),
    ],
)
def test_trainer_reports_invalid_usage(command: str, message: str) -> None:
    result = trainer(*command.split())
    assert result.code == 2 and message in result.err


def test_leading_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", 3)
    (tmp_path / "recipe.yaml").write_text("- to_lr: {interpolation: area}\n")
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\n")
    options = ("--size=64", "--workers=0", "--degradation=~/recipe.yaml", "--exclude=~/exclude.txt")
    result = run_cli("generate", "--input=~/photos", "--output=~/shards", *options, "--auto")
    assert result.returncode == 0, result.stderr
    assert f"Photos  2 of 2 in {tmp_path}/photos" in result.stdout and "Exclude 1 photo " in result.stdout
    assert (tmp_path / "shards" / "scale_4x" / "manifest.json").is_file() and not (tmp_path / "~").exists()
    refused = trainer("evaluate", "--weights=~/best.pth", "--shards=~/shards/scale_4x")
    assert refused.code != 0 and f"{tmp_path}/best.pth" in refused.err


def test_tilde_elsewhere_is_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~photos", "./~/photos"):
        make_photos(tmp_path / name, 2)
        result = run_cli("generate", f"--input={name}", "--dry-run")
        assert f"Photos  2 of 2 in {name.removeprefix('./')}" in result.stdout, result.stderr
