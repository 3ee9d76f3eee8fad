"""Closed, full or broken standard streams: results are the same, and messages say which stream failed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import SMALL, TIMEOUT_S, all_files, contract_files, generate, make_photos, run_cli

pytestmark = pytest.mark.slow

FULL = "cannot write to standard output: No space left on device"
SIGPIPE_CODE = 141


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `photos`, generated with intact streams."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, "-s", 2)
    return output


def redirected(redirection: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` with a shell redirection, e.g. `2>&-`, and capture the other streams."""
    args = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", *map(str, command)]
    return subprocess.run(args, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)


@contextmanager
def broken_pipe() -> Iterator[int]:
    """Yield the writing end of a pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def generate_args(photos: Path, output: Path, *args: object) -> list[object]:
    return ["generate", "-i", photos, "-o", output, "-s", 2, "--size", 64, "--workers", 0, *args]


@pytest.mark.parametrize(
    ("redirection", "code", "out", "err"),
    [
        ("2>&-", 0, "Shards: 2 built", ""),
        ("2>/dev/full", 0, "Shards: 2 built", ""),
        (">&-", 0, "", "12/12 photos"),
        (">/dev/full", 0, "", f"Warning: {FULL}\n"),
        ("1</dev/null", 0, "", "Warning: cannot write to standard output: Bad file descriptor\n"),
        ("<&- >&- 2>&-", 0, "", ""),
    ],
)
def test_shards_do_not_depend_on_the_streams(
    redirection: str, code: int, out: str, err: str, photos: Path, shards: Path, tmp_path: Path
) -> None:
    workers = ("--workers", 2) if "2>&-" in redirection else ()  # workers inherit the closed stream
    result = redirected(redirection, "shardgen", *generate_args(photos, tmp_path / "out", "--auto", *workers))
    assert result.returncode == code and out in result.stdout and err in result.stderr
    assert result.stderr.count("cannot write") == err.count("cannot write") and str(tmp_path) not in result.stderr
    assert contract_files(tmp_path / "out") == contract_files(shards)


def test_shards_are_generated_with_a_broken_pipe(photos: Path, shards: Path, tmp_path: Path) -> None:
    with broken_pipe() as pipe:
        result = run_cli(
            *generate_args(photos, tmp_path / "out", "--auto"),
            capture_output=False,
            stdout=pipe,
            stderr=subprocess.PIPE,
        )
    assert result.returncode == 0 and result.stderr.startswith("12/12 photos") and result.stderr.count("\n") == 1
    assert contract_files(tmp_path / "out") == contract_files(shards)


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null", "0>/dev/null"])
def test_prompt_without_an_answer_stops_the_run(redirection: str, photos: Path, tmp_path: Path) -> None:
    result = redirected(redirection, "shardgen", *generate_args(photos, tmp_path / "out"))
    assert result.returncode == 1 and "Proceed?" in result.stdout
    assert result.stderr.strip() == "Stopped; nothing was changed. Pass --auto to run without a prompt."
    assert all_files(tmp_path) == {"out/.shardgen.lock"}


def test_prompt_is_answered_even_if_stdout_is_full(photos: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        result = run_cli(
            *generate_args(photos, tmp_path / "out"),
            capture_output=False,
            stdin=None,
            input="y\n",
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert result.returncode == 0 and f"Warning: {FULL}\n" in result.stderr
    assert (tmp_path / "out/scale_2x/manifest.json").exists()


@pytest.mark.parametrize(
    "args",
    [
        "inspect {shards}",
        "inspect {shards} --json",
        "recipe show realesrgan",
        "generate --help",
        "generate -i {photos} --dry-run",
    ],
)
def test_unwritable_results_are_errors(args: str, photos: Path, shards: Path) -> None:
    command = args.format(shards=shards, photos=photos).split()
    result = redirected(">/dev/full", "shardgen", *command)
    assert (result.returncode, result.stderr) == (1, f"Error: {FULL}\n")
    with broken_pipe() as pipe:
        result = run_cli(*command, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (SIGPIPE_CODE, "")


def test_unwritable_remarks_are_warnings(shards: Path, tmp_path: Path) -> None:
    for args in (
        ["verify", shards],
        ["preview", shards / "scale_2x", "-o", tmp_path / "p.png"],
        ["unpack", shards, "-o", tmp_path / "u"],
    ):
        result = redirected(">/dev/full", "shardgen", *args)
        assert (result.returncode, result.stderr) == (0, f"Warning: {FULL}\n")
    assert (tmp_path / "p.png").exists() and len(list((tmp_path / "u").rglob("*.png"))) == 36


def test_errors_keep_their_exit_code(tmp_path: Path) -> None:
    for redirection in (">/dev/full", "2>/dev/full", ">&- 2>&-"):
        result = redirected(redirection, "shardgen", "inspect", tmp_path / "none")
        assert result.returncode == 2
        assert ("no such folder" in result.stderr) == (
            redirection == ">/dev/full"
        ) and "cannot write" not in result.stderr


def test_nonblocking_pipes_lose_no_output() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, bytes(1 << 20))
    command = [sys.executable, "-m", "shardgen", "recipe", "show", "realesrgan"]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as child, open(reading, "rb") as pipe:
        os.close(writing)
        output = pipe.read()[filled:].decode()
        assert child.communicate(timeout=TIMEOUT_S)[1] == b"" and child.returncode == 0
    assert output == run_cli("recipe", "show", "realesrgan").stdout


# ---- the trainer


def test_training_does_not_depend_on_the_streams(shards: Path, tmp_path: Path) -> None:

    def train_args(name: str, *more: object) -> list[object]:
        steps = ("--steps", 2, "--val-every", 2)
        return ["--shards", shards / "scale_2x", *SMALL, *steps, "--out", tmp_path, "--run", name, *more]

    result = redirected(">/dev/full", "trainer", *train_args("full"))
    assert result.returncode == 0 and result.stderr.endswith(f"Warning: {FULL}\n") and "Step 2" in result.stderr
    result = redirected("<&- >&- 2>&-", "trainer", *train_args("closed", "--workers", 1))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "full/model.pth").read_bytes() == (tmp_path / "closed/model.pth").read_bytes()
    result = redirected(">/dev/full", "trainer", "report", tmp_path / "full", "-o", tmp_path / "report.html")
    assert (result.returncode, result.stderr) == (0, f"Warning: {FULL}\n") and (tmp_path / "report.html").exists()
    evaluate = ["--weights", tmp_path / "full/best.pth", "--shards", shards / "scale_2x", "--device", "cpu", "--json"]
    result = redirected(">/dev/full", "trainer", "evaluate", *evaluate)
    assert (result.returncode, result.stderr) == (1, f"Error: {FULL}\n")
