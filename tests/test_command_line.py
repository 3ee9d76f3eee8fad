"""The command line as a person meets it: help, completion, near words, colours, narrow terminals, closed pipes."""

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
from helpers import PATIENCE_S, generate, make_photos, run_cli, trainer

from shardgen.cli import commands as shardgen
from shardgen.planning.config import METHODS
from shardgen.sample_photos import main as sample_photos
from srshards.terminal.text import Bar, fitted
from tests.drill.__main__ import main as drill
from trainer.cli import commands as trainer_commands
from trainer.training.config import DEFAULT_LR, LOSS_NAMES

ROOT = Path(__file__).parent.parent
BENCHMARKS = {path.stem: path.read_text() for path in sorted((ROOT / "benchmarks").glob("*.py"))}
PROGRAMS: dict[str, click.Command] = {
    "python -m shardgen": shardgen,
    "python -m trainer": trainer_commands,
    "python -m tests.drill": drill,
    "python -m shardgen.sample_photos": sample_photos,
    **{
        f"python -m benchmarks.{name}": importlib.import_module(f"benchmarks.{name}").main
        for name, code in BENCHMARKS.items()
        if "@click.command" in code
    },
}
# They wait for nothing, not even for click.
PLAIN_MODULES = [name for name, code in BENCHMARKS.items() if "ArgumentParser(" in code]


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, by the words that call them."""
    yield name, command
    if isinstance(command, click.Group):
        for word, below in sorted(command.commands.items()):
            yield from walk(f"{name} {word}", below)


COMMANDS = dict(pair for name, command in PROGRAMS.items() for pair in walk(name, command))


def program_of(words: str) -> str:
    return next(name for name in PROGRAMS if f"{words} ".startswith(f"{name} "))


def help_of(words: str, columns: int = 80) -> str:
    program = program_of(words)
    args = [*words.removeprefix(program).split(), "--help"]
    done = CliRunner(env={"COLUMNS": str(columns)}).invoke(PROGRAMS[program], args, prog_name=program)
    assert done.exit_code == 0, done.output
    return done.output


def examples_of(text: str) -> list[str]:
    """The commands below `Example:`, each on a line of its own."""
    block = re.search(r"^  Examples?:\n((?:    \S.*\n)+)", text, re.MULTILINE)
    return [line.strip() for line in block[1].splitlines()] if block else []


# ---- help


@pytest.mark.parametrize("words", COMMANDS)
def test_every_help_has_examples_that_are_right(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[click.Command] = []
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: reached.append(self))
    examples = examples_of(help_of(words))
    assert examples, f"`{words} --help` has no example"
    program = program_of(words)
    for example in examples:
        assert f"{example} ".startswith(f"{words} "), example
        command = example.removeprefix(program).partition(" > ")[0]
        PROGRAMS[program].main(shlex.split(command), prog_name=program, standalone_mode=False)
        assert reached[-1] is COMMANDS[words] or isinstance(COMMANDS[words], click.Group)


@pytest.mark.parametrize("name", PLAIN_MODULES)
def test_the_help_of_what_benchmarks_start_has_an_example(
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
@pytest.mark.parametrize("words", COMMANDS)
def test_help_fits_the_terminal(words: str, columns: int) -> None:
    text = help_of(words, columns)
    options = text[text.index("\nOptions:") :].partition("\nCommands:")[0].splitlines()[2:]
    for line in text.splitlines():
        is_to_copy = line.strip() in examples_of(text)  # the terminal breaks it, so that it can be copied
        is_a_word = " " not in re.sub(r"^ *(-\w, )?(--)?[\w-]+ ?", "", line).strip()
        assert len(line) <= columns or is_to_copy or is_a_word or line.startswith("Usage:"), line
    if columns == 40:  # descriptions stand below their options, not in what is left beside them
        assert all(re.match(r" {2,8}\S", line) for line in options if line)


def test_importing_the_commands_changes_nothing_of_click() -> None:
    assert click.Context.formatter_class is click.HelpFormatter, "for whoever imports these modules into a program"


@pytest.mark.parametrize("columns", [40, 80])
def test_what_commands_do_is_said_in_full(columns: int) -> None:
    for program in ("python -m shardgen", "python -m trainer"):
        commands = help_of(program, columns).partition("\nCommands:\n")[2]
        assert commands and "..." not in commands


@pytest.mark.parametrize("words", [words for words in COMMANDS if "benchmarks" not in words])
def test_h_is_help(words: str) -> None:
    program = program_of(words)
    done = CliRunner().invoke(PROGRAMS[program], [*words.removeprefix(program).split(), "-h"], prog_name=program)
    assert done.exit_code == 0 and done.output == help_of(words)


def test_without_words_shardgen_says_what_there_is() -> None:
    done = run_cli()
    assert done.returncode == 2 and examples_of(done.stderr) and "generate" in done.stderr


def test_versions() -> None:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "srshards" / "__init__.py").read_text())
    assert version
    assert run_cli("--version").stdout == f"shardgen, version {version[1]}\n"
    assert trainer("--version").out == f"trainer, version {version[1]}\n"


@pytest.mark.parametrize("words", ["", "generate ", "recipe show "])
def test_usage_names_the_module_to_run(words: str) -> None:
    assert run_cli(*words.split(), "-h").stdout.startswith(f"Usage: python -m shardgen {words}[OPTIONS]")
    assert f"Try 'python -m shardgen {words}--help' for help." in run_cli(*words.split(), "--nope").stderr
    assert trainer("-h").out.startswith("Usage: python -m trainer [OPTIONS]")


def test_scales_are_shown_as_they_may_be_typed() -> None:
    assert re.search(
        r"-s, --scales N +One or more of 2 to 8: 2 3 4, or 2,3,4\.", help_of("python -m shardgen generate")
    )


def test_error_messages_escape_control_characters(tmp_path: Path) -> None:
    done = run_cli("verify", tmp_path / "two\nlines\x1b[31m")
    assert done.returncode == 2 and "two\\nlines\\x1b[31m" in done.stderr
    assert done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


# ---- completion


def completions(program: str, *words: str) -> list[CompletionItem]:
    """What is offered for the last of the words, which may be empty."""
    complete = ShellComplete(PROGRAMS[program], {}, program, "_COMPLETE")
    return complete.get_completions(list(words[:-1]), words[-1])


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("generate", "--method", ""), list(METHODS)),
        (("generate", "--codec", "p"), ["png"]),
        (("generate", "--degradation", "real"), ["realesrgan"]),
        (("preview", "--recipe", ""), ["realesrgan", "bsrgan-light"]),
        (("recipe", "show", "b"), ["bsrgan-light"]),
        (("recipe", "s"), ["show", "steps"]),
        (("generate", "-s", ""), list("2345678")),
        (("generate", "-s", "2", "3", ""), list("2345678")),
        (("generate", "-s", "2", "--val"), ["--val-fraction"]),
        (("generate", "-s", "2", "--size", "64", ""), []),
        (("gen",), ["generate"]),
    ],
)
def test_words_of_shardgen_are_completed(words: tuple[str, ...], offered: list[str]) -> None:
    assert [item.value for item in completions("python -m shardgen", *words)] == offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("--model", ""), ["ultra_lite", "lite", "standard"]),
        (("--loss", "c"), ["charbonnier"]),
        (("eval",), ["evaluate"]),
        (("evaluate", "--split", ""), ["train", "val"]),
        (("--shards", "x", "--patches"), ["--patches-per-sample"]),
        (("no-such-command", "ex"), ["export"]),
    ],
)
def test_words_of_trainer_are_completed(words: tuple[str, ...], offered: list[str]) -> None:
    assert [item.value for item in completions("python -m trainer", *words)] == offered


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if program_of(words) in ("python -m shardgen", "python -m trainer")]
)
def test_files_and_folders_are_completed_by_the_shell(words: str) -> None:
    context = click.Context(COMMANDS[words])
    for parameter in COMMANDS[words].params:
        if parameter.type.name in ("address", "path", "file", "directory"):
            kinds = {item.type for item in parameter.shell_complete(context, "x")}
            assert kinds in ({"file"}, {"dir"}), parameter
    recipe = completions("python -m shardgen", "recipe", "check", "mine.y")
    assert [(item.value, item.type) for item in recipe] == [("mine.y", "file")]


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", "~/.bashrc"), ("zsh", "~/.zshrc"), ("fish", "~/.config/fish/config.fish")]
)
def test_make_completion_prints_lines_that_work(shell: str, file: str, tmp_path: Path) -> None:
    """In a virtual environment that has been installed already: this one."""
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    (venv / ".installed").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"SHELL": f"/usr/bin/{shell}", "PYTHONPATH": str(ROOT)}
    said = run_text(["make", "--silent", "completion", f"VENV={venv}"], environment)
    assert f"Add these lines to {file}" in said
    lines = [line for line in said.splitlines() if line.startswith("source ")]
    scripts = [Path(shlex.split(line)[1]) for line in lines[:2]]
    assert [script.name for script in scripts] == [f"shardgen.{shell}", f"trainer.{shell}"]
    assert Path(shlex.split(lines[2])[1]).parent == venv / "bin"
    for script in scripts:
        assert f"_{script.stem.upper()}_COMPLETE={shell}_complete" in script.read_text()
    if shell == "bash":
        _completes_in_bash(lines[:2], {**environment, "PATH": f"{venv}/bin:{os.environ['PATH']}"})


def _completes_in_bash(lines: list[str], environment: dict[str, str]) -> None:
    """As a person does it: the lines are sourced, and the function that bash then knows is asked."""
    code = (
        "\n".join(lines)
        + """
    compopt() { echo "compopt $1 $2"; }  # bash has it while Tab is pressed only
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
    said = run_text(["bash", "--norc", "-c", code], environment)
    offered = ["inspect", "npy png webp", "compopt -o default", "", "ultra_lite lite standard", "--weights"]
    assert said.splitlines() == offered


def run_text(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


def test_neither_help_nor_completion_waits_for_pytorch() -> None:
    code = "import sys, trainer.cli; print([name for name in ('torch', 'cv2', 'altair', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == "[]\n"


def test_names_that_help_knows_without_pytorch_are_those_that_there_are() -> None:
    from trainer.models import MODELS
    from trainer.training.losses import LOSSES

    assert tuple(DEFAULT_LR) == MODELS and tuple(LOSSES) == LOSS_NAMES


# ---- near words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("generat", "No such command 'generat'. Did you mean 'generate'?"),
        ("recipe shwo", "Did you mean 'show'?"),
        ("generate --methd area", "'--method'"),
        (
            "generate --method cubik",
            "'cubik' is not one of 'nearest', 'linear', 'cubic', 'area', 'lanczos', 'matlab'. Did",
        ),
        ("generate --method cubik", "Did you mean 'cubic'?"),
        ("generate --codec pgn", "Did you mean 'png'?"),
        ("generate --engine rai", "Did you mean 'ray'?"),
        ("unpack x -o y --split vall", "Did you mean 'val'?"),
        ("recipe show realesrgn", "unknown name 'realesrgn'; did you mean 'realesrgan'?"),
    ],
)
def test_shardgen_names_the_nearest(words: str, said: str) -> None:
    done = run_cli(*words.split())
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluat", "unknown command evaluat; did you mean 'evaluate'?"),
        ("upscal x.png", "unknown command upscal; did you mean 'upscale'?"),
        ("--model standart", "'standart' is not one of 'ultra_lite', 'lite', 'standard'. Did you mean 'standard'?"),
        ("evaluate --split vall", "Did you mean 'val'?"),
        ("--los l1", "'--loss'"),
        ("evaluate --weigths x", "'--weights'"),
    ],
)
def test_trainer_names_the_nearest(words: str, said: str) -> None:
    done = trainer(*words.split())
    assert done.code == 2 and said in done.err and done.out == ""


@pytest.mark.parametrize("words", ["qqqq", "generate --codec qqqq", "generate --qqqq", "recipe show qqqq"])
def test_nothing_is_suggested_when_nothing_is_near(words: str) -> None:
    said = run_cli(*words.split()).stderr
    assert "qqqq" in said and "did you mean" not in said.lower()
    said = trainer(*{"generate": ["--model"]}.get(words.split()[0], []), "qqqq").err
    assert "qqqq" in said and "did you mean" not in said.lower()


def test_a_folder_that_is_called_nearly_as_a_command_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exports").mkdir()
    assert "unknown command exports; to train on it, pass --shards exports" in trainer("exports").err


# ---- empty paths


EMPTY = "the path is empty; expected a folder or a file, or . for the working directory"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["generate", "--input", ""], "'-i' / '--input': "),
        (["generate", "--output", ""], "'-o' / '--output': "),
        (["generate", "--exclude", ""], "'--exclude': "),
        (["inspect", ""], "'[FOLDER]': "),
        (["inspect", "file://"], "'[FOLDER]': "),
        (["unpack", "x", "-o", ""], "'-o' / '--output': "),
        (["report", "x", "--output="], "'-o' / '--output': "),
    ],
)
def test_an_empty_path_is_not_the_working_directory(
    words: list[str], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli(*words)
    assert done.returncode == 2 and f"Invalid value for {option}{EMPTY}" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["generate", "-i", "{photos}", "--degradation", ""], ["recipe", "check", ""]])
def test_an_empty_recipe_is_none(words: list[str], photos: Path) -> None:
    done = run_cli(*(word.format(photos=photos) for word in words))
    assert done.returncode == 2
    assert done.stderr == "Error: recipe: unknown name ''; expected one of realesrgan, bsrgan-light\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--shards", ""],
        ["--out", ""],
        ["--cache", ""],
        ["--init", ""],
        ["--config", ""],
        ["evaluate", "--weights", ""],
        ["evaluate", "--hr", ""],
        ["export", "--output", ""],
        ["report", "x", "--output", ""],
        ["upscale", "x", "--output", ""],
    ],
)
def test_the_trainer_refuses_empty_paths_too(words: list[str]) -> None:
    done = trainer(*words)
    assert done.code == 2 and f"{words[-2]}': {EMPTY}" in done.err


def test_an_empty_path_in_a_file_of_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("out: ''\n")
    done = trainer("--config", tmp_path / "c.yaml", "--shards", tmp_path)
    assert (done.code, done.err) == (2, f"Error: {tmp_path / 'c.yaml'}: out: {EMPTY}\n")


def test_sample_photos_are_not_copied_to_an_empty_path() -> None:
    done = CliRunner().invoke(sample_photos, [""])
    assert done.exit_code == 2 and EMPTY in done.output


def test_a_file_to_write_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    assert (
        f"{tmp_path / 'there'} is a folder: pass the file" in trainer("export", "--weights=x", "--output=~/there").err
    )


# ---- terminals


def in_terminal(command: list[object], folder: Path, columns: int, **environment: str) -> str:
    """All that a command writes to a terminal of so many columns, in order, as it was sent. Exit code 0."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env={**plain, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = bytearray()
    while True:
        try:
            some = os.read(ours, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        if not some:
            break
        sent += some
    os.close(ours)
    text = sent.decode()
    assert child.wait(PATIENCE_S) == 0, text
    return text


def drawn(sent: str) -> list[str]:
    """Every line as it stood on the terminal at some time."""
    without_style = re.sub(r"\x1b\[[0-9;]*m", "", sent)
    return [line.rstrip() for line in re.split(r"[\r\n]+", without_style)]


COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and the shards of them, whose names are short."""
    folder = tmp_path_factory.mktemp("place")
    make_photos(folder / "photos", 24)
    generate(folder / "photos", folder / "s", "-s", 2, "--variants", 2, "--degradation", "bsrgan-light")
    return folder


INSPECTED: list[list[object]] = [["s"], ["s", "--shard", "train-000000"], ["s", "--sample", "000000000002"]]


@pytest.mark.parametrize("columns", [30, 40, 300])
@pytest.mark.slow
def test_tables_fit_the_terminal(columns: int, place: Path) -> None:
    shown = [in_terminal(["shardgen", "inspect", *words], place, columns, NO_COLOR="1") for words in INSPECTED]
    lines = [line for text in shown for line in drawn(text)]
    assert max(map(len, lines)) <= columns
    for whole in ("000000000002", "256,000,000", "train-000000", "bsrgan-light", "class0/img3.jpg"):
        assert any(whole in line for line in lines), whole
    cells = [cell.strip() for line in lines if line.startswith("│") for cell in line.strip("│").split("│")]
    assert not any(len(cell) == 1 and cell.isalpha() for cell in cells)
    if columns == 300:
        assert any("┃ key" in line and "PSNR of up" in line for line in lines)


@pytest.mark.parametrize("columns", [30, 40, 300])
@pytest.mark.slow
def test_generating_fits_the_terminal(columns: int, place: Path) -> None:
    words = ["-i", "photos", "-o", f"o{columns}", "-s", 2, 4, "--size", 64, "--workers", 0, "--auto"]
    sent = in_terminal(["shardgen", "generate", *words], place, columns, NO_COLOR="1")
    lines = drawn(sent)
    assert max(map(len, lines)) <= columns and not COLOUR.search(sent)
    assert any(line.startswith("100%") and "24/24" in line for line in lines)
    assert any(re.match(r"Disk +\d+\.\d MB needed", line) for line in lines)
    assert ("█" in sent) == (columns == 300)
    if columns == 30:
        verified = drawn(in_terminal(["shardgen", "verify", f"o{columns}"], place, columns))
        assert max(map(len, verified)) <= columns and "48 samples" in " ".join(verified)


@pytest.mark.slow
def test_training_and_evaluating_fit_the_terminal(place: Path) -> None:
    small = ["--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--workers", 0, "--device", "cpu"]
    words = [
        "--shards",
        "s/scale_2x",
        *small,
        "--steps",
        4,
        "--val-every",
        4,
        "--out",
        "runs",
        "--run",
        "r",
        "--verify",
    ]
    sent = in_terminal(["trainer", *words], place, 40, NO_COLOR="1")
    lines = drawn(sent)
    assert max(map(len, lines)) <= 40 and not COLOUR.search(sent)
    assert any(re.match(r"100% 4/4, 00:00 left", line) for line in lines)
    assert sum(bool(re.fullmatch(r"network +\d+\.\d\d dB +-?\d\.\d{4}", line)) for line in lines) == 2
    words = ["evaluate", "--weights", "runs/r/best.pth", "--shards", "s/scale_2x"]
    sent = in_terminal(["trainer", *words], place, 40)
    assert max(map(len, drawn(sent))) <= 40
    assert sum(line.startswith("bicubic") for line in drawn(sent)) == 2


def test_a_dumb_terminal_gets_plain_lines(place: Path) -> None:
    words = ["-i", "photos", "-o", "dumb", "-s", 2, "--size", 64, "--workers", 0, "--auto"]
    for command in (["generate", *words], ["inspect", "dumb"]):
        sent = in_terminal(["shardgen", *command], place, 80, TERM="dumb")
        assert "\x1b" not in sent and "\r" not in sent.replace("\r\n", "\n")
        if command[0] == "generate":
            assert re.search(r"^24/24 photos, \d+ photos/s, \d+ MB/s\r$", sent, re.MULTILINE)


def test_a_pipe_gets_no_escape_sequences(place: Path) -> None:
    done = run_cli("inspect", "s", cwd=place, env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    words = ("-i", "photos", "-o", "piped", "-s", 2, "--size", 64, "--workers", 0, "--auto")
    done = run_cli("generate", *words, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr and "\r" not in done.stderr


def test_colours_that_are_forced_end_nothing(place: Path) -> None:
    forced = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    assert run_cli("inspect", "s", cwd=place, env=forced).returncode == 0
    assert run_cli("recipe", "show", cwd=place, env=forced).returncode == 0


FIGURES = "loss 0.0312, lr 4.0e-03, 72 patches/s, data wait 1.2%, best 28.77 dB"


@pytest.mark.parametrize("columns", [24, 30, 40, 60, 80, 120, 300])
def test_a_bar_gives_way_to_its_figures(columns: int) -> None:
    told = {"unit": "it", "prefix": "", "ascii": False, "postfix": FIGURES, "unit_scale": False, "rate": 3.2}
    line = Bar.format_meter(35, 700, 12.3, ncols=columns, **told)
    assert len(line) <= columns and "35/700" in line and "5%" in line
    assert ("█" in line) == (columns == 300)  # else there is no room for more than a column of the bar, or none
    assert (FIGURES in line) == (columns >= 120) and ("loss 0.0312" in line) == (columns >= 60)
    if columns < 120:  # whole figures, in their order
        told_of = line.split(", ")[3:]
        assert told_of == FIGURES.split(", ")[: len(told_of)]


def test_only_terminals_break_lines() -> None:
    assert fitted("a word " * 100, sys.__stdin__ or sys.stdin).splitlines()  # whatever that is, nothing is lost
    with open(os.devnull, "w") as nowhere:
        assert fitted("a word " * 100, nowhere) == "a word " * 100


# ---- pipes that are closed


@pytest.mark.parametrize("words", ["shardgen recipe steps", "shardgen inspect s --shard train-000000", "trainer -h"])
def test_a_reader_that_goes_away_is_no_traceback(words: str, place: Path) -> None:
    code = f"{shlex.quote(sys.executable)} -m {words} | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", code], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == ""


def test_options_of_training_before_a_command_are_named() -> None:
    said = trainer("--model", "lite", "evaluate", "--weights", "x").err
    assert "--model before evaluate is an option of training; pass it after evaluate" in said


def test_without_words_the_trainer_says_what_is_missing() -> None:
    done = trainer()
    assert done.code == 2 and "pass the shards to train on, e.g. --shards shards/scale_4x" in done.err


def test_a_tilde_that_the_shell_left_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", 3)
    (tmp_path / "recipe.yaml").write_text("- to_lr: {interpolation: area}\n")
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\n")
    options = ("--size=64", "--workers=0", "--degradation=~/recipe.yaml", "--exclude=~/exclude.txt")
    done = run_cli("generate", "--input=~/photos", "--output=~/shards", *options, "--auto")
    assert done.returncode == 0, done.stderr
    assert f"Photos  2 of 2 in {tmp_path}/photos" in done.stdout and "Exclude 1 photo " in done.stdout
    assert (tmp_path / "shards" / "scale_4x" / "manifest.json").is_file() and not (tmp_path / "~").exists()
    refused = trainer("evaluate", "--weights=~/best.pth", "--shards=~/shards/scale_4x")
    assert refused.code != 0 and f"{tmp_path}/best.pth" in refused.err


def test_a_tilde_elsewhere_is_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~photos", "./~/photos"):
        make_photos(tmp_path / name, 2)
        done = run_cli("generate", f"--input={name}", "--dry-run")
        assert f"Photos  2 of 2 in {name.removeprefix('./')}" in done.stdout, done.stderr
