"""What several test files need: made photos, the command line, and a look at what came out."""

import contextlib
import io
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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

make_photo = partial(folders.make_photo, texture=12)
make_photos = partial(folders.make_photos, texture=12)

PATIENCE_S = 100.0  # how long a test waits for what has to come, on a machine that is busy with other things


def mode_and_size(path: Path) -> tuple[str, tuple[int, int]]:
    """Pillow's name for what is stored in an image file, and (width, height) in px."""
    with Image.open(path) as image:
        return image.mode, image.size


def run_cli(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m shardgen ...`, its output as text. With options, those of `subprocess`, in a process of its own."""
    words = [str(arg) for arg in args]
    if not options:
        return _run_here(words)
    command = [sys.executable, "-m", "shardgen", *words]
    options = {"capture_output": True, "text": True, "timeout": PATIENCE_S, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, **options)


def _run_here(words: list[str]) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves the time of starting one."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    stdin = sys.stdin
    sys.stdin = io.StringIO()  # nobody is there
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(words)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.stdin = stdin
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(errors="surrogateescape"))
    return subprocess.CompletedProcess(words, ended.value.code, *texts)


def generate(photos: Path, output: Path, *args: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """A small run (HR 64 px, in one process unless `--workers` says otherwise) that must end with `expect`."""
    workers = () if "--workers" in args else ("--workers", 0)
    done = run_cli("generate", "-i", photos, "-o", output, "--size", 64, "--auto", *workers, *args)
    assert done.returncode == expect, done.stderr + done.stdout
    return done


def contract_files(output: Path) -> dict[str, str]:
    """Return the SHA-256 of every shard, index and manifest. Markers are omitted: they contain modification times."""
    return hashes(output, with_markers=False)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Damage a file: put `data` in place of as many of its bytes, from `offset` on."""
    with open(path, "rb+") as file:
        file.seek(offset)
        file.write(data)


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@contextlib.contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[str]]:
    """`python -m shardgen ...` in a process group of its own, killed at the end if it is still there."""
    process = commands.start("shardgen", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Wait for a true value of `condition`, and return it. The process must live until then."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert process is None or process.poll() is None, f"ended before its time: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return value


def unfinished(output: Path) -> list[Path]:
    """Temporary files of shards that are being written."""
    return [path for path in output.rglob("*.tmp") if path.parent != output]


def markers(output: Path) -> list[Path]:
    """The markers of finished shards."""
    return [*output.glob("scale_*/train-*.json"), *output.glob("scale_*/val-*.json")]


def deep_folder(folder: Path) -> str:
    """Make folders below `folder` until their path is longer than the system takes; the path relative to it.

    `photo.jpg` lies in the last one, a good photo that nobody can open by its path.
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
    """Every image member of a shard by its name, decoded."""
    data = tar.read_bytes()
    images = {}
    for member in (member for sample in load_index(tar.with_suffix(".idx")) for member in sample):
        if member.extension != "json":
            content = data[member.offset : member.offset + member.size]
            images[member.name] = codec.decode(member.extension.rpartition(".")[2], content)
    return images


def run_trainer(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m trainer ...`, its output as text."""
    options = {"capture_output": True, "text": True, "timeout": 100, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(trainer_command(*args), **options)


def trainer(*args: object) -> Result:
    """`python -m trainer ...` in this process, which starts faster. What is not an exit goes through."""
    from trainer.cli import main  # the shardgen tests need no PyTorch

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    assert isinstance(ended.value.code, int)
    return Result(ended.value.code, out.getvalue(), err.getvalue())


def start_within(monkeypatch: pytest.MonkeyPatch, target: str, count: int, *args: object) -> list[Result]:
    """As many trainings of the same words, each started when the one before calls `target`; in the order they end."""
    ended: list[Result] = []
    waiting = [args] * count
    real = pkgutil.resolve_name(target)

    def start_another(*given: Any) -> Any:
        if waiting:
            ended.append(trainer(*waiting.pop()))
        return real(*given)

    monkeypatch.setattr(target, start_another)
    return ended


def events(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """Those of the `journal` that have one of these kinds."""
    return [entry for entry in journal(run) if entry["event"] in kinds]


def weights(run: Path) -> dict[str, bytes]:
    """The content of a run's weight files."""
    return {name: (run / name).read_bytes() for name in ("model.pth", "best.pth")}


def trainer_command(*args: object) -> list[str]:
    return [sys.executable, "-m", "trainer", *(str(arg) for arg in args)]


# Makes its stdin the terminal that it runs in, as a shell does; with "nohup" as its first word, SIGHUP is ignored.
_IN_ITS_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.argv[2], sys.argv[2:])
"""


def close_terminal_under(command: list[str], when: Callable[[], object], nohup: bool = False) -> int:
    """Run the command in a terminal, which is closed as soon as `when` holds. The exit code."""
    master, terminal = os.openpty()
    os.set_blocking(master, False)
    launcher = [sys.executable, "-c", _IN_ITS_TERMINAL, "nohup" if nohup else "", *command]
    process = subprocess.Popen(launcher, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    said = b""
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not when():
            with contextlib.suppress(BlockingIOError):
                said += os.read(master, 1 << 16)  # a terminal that nobody reads from holds its writers up
            assert process.poll() is None and time.monotonic() < deadline, said.decode()
            time.sleep(0.01)  # asking costs the process that is waited for its CPU
        os.close(master)
        return process.wait(PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--workers", 0, "--device", "cpu")
