"""Standard streams that are closed, full or gone: what is made is the same, and the message names the stream."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import PATIENCE_S, SMALL, all_files, contract_files, generate, make_photos, run_cli

FULL = "cannot write to standard output: No space left on device"
SIGPIPE_CODE = 141


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("few"), 12)


@pytest.fixture(scope="module")
def made(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `few`, made with streams as they should be."""
    output = tmp_path_factory.mktemp("made")
    generate(few, output, "-s", 2)
    return output


def redirected(redirection: str, *command: object) -> subprocess.CompletedProcess[str]:
    """`python -m ...` with a shell's redirection, e.g. `2>&-`; what it writes elsewhere is captured."""
    words = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)


@contextmanager
def broken_pipe() -> Iterator[int]:
    """A pipe to write to, whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def generating(photos: Path, output: Path, *args: object) -> list[object]:
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
def test_shards_are_made_whatever_the_streams_are(
    redirection: str, code: int, out: str, err: str, few: Path, made: Path, tmp_path: Path
) -> None:
    workers = ("--workers", 2) if "2>&-" in redirection else ()  # they inherit it
    done = redirected(redirection, "shardgen", *generating(few, tmp_path / "out", "--auto", *workers))
    assert done.returncode == code and out in done.stdout and err in done.stderr
    assert done.stderr.count("cannot write") == err.count("cannot write") and str(tmp_path) not in done.stderr
    assert contract_files(tmp_path / "out") == contract_files(made)


def test_shards_are_made_though_nobody_reads_about_it(few: Path, made: Path, tmp_path: Path) -> None:
    with broken_pipe() as pipe:
        done = run_cli(
            *generating(few, tmp_path / "out", "--auto"), capture_output=False, stdout=pipe, stderr=subprocess.PIPE
        )
    assert done.returncode == 0 and done.stderr.startswith("12/12 photos") and done.stderr.count("\n") == 1
    assert contract_files(tmp_path / "out") == contract_files(made)


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null", "0>/dev/null"])
def test_a_question_that_cannot_be_answered_stops_the_run(redirection: str, few: Path, tmp_path: Path) -> None:
    done = redirected(redirection, "shardgen", *generating(few, tmp_path / "out"))
    assert done.returncode == 1 and "Proceed?" in done.stdout
    assert done.stderr.strip() == "Stopped; nothing was changed. Pass --auto to run without a prompt."
    assert all_files(tmp_path) == {"out/.shardgen.lock"}


def test_a_question_that_is_not_seen_is_answered_all_the_same(few: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run_cli(
            *generating(few, tmp_path / "out"),
            capture_output=False,
            stdin=None,
            input="y\n",
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 0 and f"Warning: {FULL}\n" in done.stderr
    assert (tmp_path / "out/scale_2x/manifest.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        "inspect {made}",
        "inspect {made} --json",
        "recipe show realesrgan",
        "generate --help",
        "generate -i {few} --dry-run",
    ],
)
def test_a_result_that_cannot_be_written_is_a_failure(words: str, few: Path, made: Path) -> None:
    command = words.format(made=made, few=few).split()
    done = redirected(">/dev/full", "shardgen", *command)
    assert (done.returncode, done.stderr) == (1, f"Error: {FULL}\n")
    with broken_pipe() as pipe:
        done = run_cli(*command, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (SIGPIPE_CODE, "")


def test_remarks_that_cannot_be_written_are_none(made: Path, tmp_path: Path) -> None:
    for words in (
        ["verify", made],
        ["preview", made / "scale_2x", "-o", tmp_path / "p.png"],
        ["unpack", made, "-o", tmp_path / "u"],
    ):
        done = redirected(">/dev/full", "shardgen", *words)
        assert (done.returncode, done.stderr) == (0, f"Warning: {FULL}\n")
    assert (tmp_path / "p.png").exists() and len(list((tmp_path / "u").rglob("*.png"))) == 36


def test_an_error_keeps_its_exit_code(tmp_path: Path) -> None:
    for redirection in (">/dev/full", "2>/dev/full", ">&- 2>&-"):
        done = redirected(redirection, "shardgen", "inspect", tmp_path / "none")
        assert done.returncode == 2
        assert ("no such folder" in done.stderr) == (redirection == ">/dev/full") and "cannot write" not in done.stderr


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, bytes(1 << 20))
    command = [sys.executable, "-m", "shardgen", "recipe", "show", "realesrgan"]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as child, open(reading, "rb") as pipe:
        os.close(writing)
        said = pipe.read()[filled:].decode()
        assert child.communicate(timeout=PATIENCE_S)[1] == b"" and child.returncode == 0
    assert said == run_cli("recipe", "show", "realesrgan").stdout


# ---- the trainer


@pytest.mark.slow
def test_weights_are_made_whatever_the_streams_are(made: Path, tmp_path: Path) -> None:
    """A page of them as well; but figures that cannot be printed are a failure."""

    def training(name: str, *more: object) -> list[object]:
        steps = ("--steps", 2, "--val-every", 2)
        return ["--shards", made / "scale_2x", *SMALL, *steps, "--out", tmp_path, "--run", name, *more]

    done = redirected(">/dev/full", "trainer", *training("full"))
    assert done.returncode == 0 and done.stderr.endswith(f"Warning: {FULL}\n") and "Step 2" in done.stderr
    done = redirected("<&- >&- 2>&-", "trainer", *training("closed", "--workers", 1))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "full/model.pth").read_bytes() == (tmp_path / "closed/model.pth").read_bytes()
    done = redirected(">/dev/full", "trainer", "report", tmp_path / "full", "-o", tmp_path / "report.html")
    assert (done.returncode, done.stderr) == (0, f"Warning: {FULL}\n") and (tmp_path / "report.html").exists()
    judged = ["--weights", tmp_path / "full/best.pth", "--shards", made / "scale_2x", "--device", "cpu", "--json"]
    done = redirected(">/dev/full", "trainer", "evaluate", *judged)
    assert (done.returncode, done.stderr) == (1, f"Error: {FULL}\n")
