"""Helpers shared by test files: synthetic photos, the command lines, and readers of their output."""

import contextlib
import io
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardgen.cli import main
from srshards.imaging import codec
from srshards.shards.tar_index import load_index
from tests.drill import commands, folders
from tests.drill.commands import Result
from tests.drill.folders import hashes
from tests.drill.training import journal
from tests.drill.warm import Warm

make_photo = partial(folders.make_photo, texture=12)
make_photos = partial(folders.make_photos, texture=12)

TIMEOUT_S = 100.0  # generous: test machines are shared


def shell_environment() -> dict[str, str]:
    """Return the environment without the variables that make sets when it runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def mode_and_size(path: Path) -> tuple[str, tuple[int, int]]:
    """Return the Pillow mode of an image file and its (width, height) in px."""
    with Image.open(path) as image:
        return image.mode, image.size


def run_cli(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m shardgen ...`: in this process, or with `subprocess` options in one of its own."""
    arguments = [str(arg) for arg in args]
    if not options:
        return _run_in_process(arguments)
    command = [sys.executable, "-m", "shardgen", *arguments]
    options = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, **options)


def _run_in_process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_info:
            main(arguments)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.stdin = stdin
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(errors="surrogateescape"))
    return subprocess.CompletedProcess(arguments, exit_info.value.code, *texts)


def generate(photos: Path, output: Path, *args: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Generate small shards (HR 64 px, one process unless `--workers` is passed), expecting this exit code."""
    workers = () if "--workers" in args else ("--workers", 0)
    result = run_cli("generate", "-i", photos, "-o", output, "--size", 64, "--auto", *workers, *args)
    assert result.returncode == expect, result.stderr + result.stdout
    return result


def contract_files(output: Path) -> dict[str, str]:
    """Return the SHA-256 of every shard, index, manifest and card; not of markers, which contain modification times."""
    return hashes(output, with_markers=False)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Damage a file: write `data` over its bytes from `offset` on."""
    with open(path, "rb+") as file:
        file.seek(offset)
        file.write(data)


@contextlib.contextmanager
def running(*args: object) -> Iterator[subprocess.Popen[str]]:
    """Start `python -m shardgen ...` in a separate process group, which is killed at the end."""
    process = commands.start("shardgen", *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Wait until `condition` returns a true value, and return it; fail if `process` exits before that."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert process is None or process.poll() is None, f"exited early: {process.communicate()}"
        assert time.monotonic() < deadline_s
        time.sleep(0.001 if process else 0.02)  # a process has to be caught in a short-lived state
    return value


def unfinished(output: Path) -> list[Path]:
    """Return the temporary files of shards that are being written."""
    return [path for path in output.rglob("*.tmp") if path.parent != output]


def markers(output: Path) -> list[Path]:
    """Return the markers of finished shards."""
    return [*output.glob("scale_*/train-*.json"), *output.glob("scale_*/val-*.json")]


def deep_folder(folder: Path) -> str:
    """Nest folders until their path exceeds PATH_MAX, and return the path relative to `folder`.

    The innermost folder contains `photo.jpg`, a valid photo that cannot be opened by its path.
    """
    name, levels = "d" * 200, 21  # 4,220 bytes
    photo = io.BytesIO()
    Image.fromarray(make_photo(90, 120, seed=0)).save(photo, "JPEG")
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        outer, here = here, os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(outer)
    with open(os.open("photo.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(photo.getvalue())
    os.close(here)
    return "/".join([name] * levels)


def all_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read_images(tar: Path) -> dict[str, np.ndarray]:
    """Decode every image member of a shard; keys are member names."""
    data = tar.read_bytes()
    images = {}
    for member in (member for sample in load_index(tar.with_suffix(".idx")) for member in sample):
        if member.extension != "json":
            content = data[member.offset : member.offset + member.size]
            images[member.name] = codec.decode(member.extension.rpartition(".")[2], content)
    return images


def run_trainer(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m trainer ...` in a separate process."""
    options = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(trainer_command(*args), **options)


def trainer(*args: object) -> Result:
    """Run `python -m trainer ...` in this process, which starts faster; exceptions other than SystemExit propagate."""
    from trainer.cli import main  # not at the top: the shardgen tests need no PyTorch

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_info:
        main([str(arg) for arg in args])
    assert isinstance(exit_info.value.code, int)
    return Result(exit_info.value.code, out.getvalue(), err.getvalue())


def run_program(program: str, *args: object) -> Result:
    """Run `python -m shardgen ...` or `python -m trainer ...` in this process."""
    if program == "trainer":
        return trainer(*args)
    result = run_cli(*args)
    return Result(result.returncode, result.stdout, result.stderr)


def warm_command(args: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Stand in for `benchmarks.common.timed_command`: run `python -m ...` in a process that has imported PyTorch."""
    assert args[:2] == [sys.executable, "-m"] and not environment
    start_s = time.monotonic()
    process = Warm(*args[2:])
    result = process.wait(TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert result.code == 0, result.err
    return time.monotonic() - start_s, result.out


def start_more_runs(monkeypatch: pytest.MonkeyPatch, target: str, count: int, *args: object) -> list[Result]:
    """Patch `target` so that its first `count` calls each run the trainer with `args` first.

    The returned list fills with the results, in the order in which the runs end.
    """
    results: list[Result] = []
    waiting = [args] * count
    real = pkgutil.resolve_name(target)

    def run_another(*given: Any) -> Any:
        if waiting:
            results.append(trainer(*waiting.pop()))
        return real(*given)

    monkeypatch.setattr(target, run_another)
    return results


def events(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """Return the entries of the training log with one of these events."""
    return [entry for entry in journal(run) if entry["event"] in kinds]


def weights(run: Path) -> dict[str, bytes]:
    """Return the bytes of a run's weight files by file name."""
    return {name: (run / name).read_bytes() for name in ("model.pth", "best.pth")}


def trainer_command(*args: object) -> list[str]:
    return [sys.executable, "-m", "trainer", *(str(arg) for arg in args)]


# Makes stdin the controlling terminal, as a shell does, and ignores SIGHUP if the first argument is "nohup".
_IN_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.argv[2], sys.argv[2:])
"""


def close_terminal_when(command: list[str], when: Callable[[], object], nohup: bool = False) -> int:
    """Run a command in a terminal that is closed as soon as `when()` is true, and return the exit code."""
    master, terminal = os.openpty()
    os.set_blocking(master, False)
    launcher = [sys.executable, "-c", _IN_TERMINAL, "nohup" if nohup else "", *command]
    process = subprocess.Popen(launcher, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    output = b""
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not when():
            with contextlib.suppress(BlockingIOError):
                output += os.read(master, 1 << 16)  # writers block if the terminal is not read
            assert process.poll() is None and time.monotonic() < deadline, output.decode()
            time.sleep(0.01)
        os.close(master)
        return process.wait(TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--workers", 0, "--device", "cpu")
