"""SIGKILL at a random moment of training, and the run resumed."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.drill import commands
from tests.drill.folders import make_photos, other_training, wait_for_group
from tests.drill.session import Session
from tests.drill.warm import Warm, run_warm

SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--device", "cpu", "--run", "r")
_STEPS = ("--steps", 120, "--val-every", 30, "--save-every", 7)
_REAL_EVERY = 5


def small_shards(folder: Path) -> Path:
    """Shards of one scale to train on."""
    photos = make_photos(folder / "photos", 40)
    words = ("-s", 2, "--size", 64, "--shard-bytes", "300KB", "--workers", 0, "--auto")
    done = run_warm("shardgen", "generate", "-i", photos, "-o", folder / "shards", *words)
    assert done.code == 0, done.err
    return folder / "shards" / "scale_2x"


def kill_training(session: Session) -> None:
    """Most cases while it trains; every fifth, with data workers and as a whole group, from the process's start on."""
    words = ("--shards", small_shards(session.scratch), *SMALL, *_STEPS)
    whole = session.scratch / "whole"
    start_s = time.monotonic()
    process = Warm("trainer", *words, "--out", whole, "--workers", 0)
    begun_s = _wait_for(whole / "r" / "config.yaml", lambda: process.is_alive)
    assert process.wait().code == 0
    train_s, total_s = time.monotonic() - begun_s, time.monotonic() - start_s
    for number in session.cases():
        out, share = session.scratch / f"out-{number}", session.rng.random()
        given = (*words, "--out", out, "--workers", 0 if number % _REAL_EVERY else 2)
        pid = _killed(given, out, share * train_s) if number % _REAL_EVERY else _real_killed(given, share * total_s)
        _resume(session, given, out, whole / "r", pid)
        shutil.rmtree(out, ignore_errors=True)
    session.tally.note = f"an undisturbed run takes {total_s:.1f} s, {train_s:.1f} s of it after start-up"


def _killed(words: tuple[object, ...], out: Path, seconds: float) -> int:
    """After so many seconds of training."""
    process = Warm("trainer", *words)
    _wait_for(out / "r" / "config.yaml", lambda: process.is_alive)
    time.sleep(seconds)
    process.kill()
    return process.pid


def _real_killed(words: tuple[object, ...], seconds: float) -> int:
    """With all its workers, so many seconds after PyTorch was loaded."""
    process = commands.start("trainer", *words)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in maps.read_text():
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return process.pid


def _resume(session: Session, words: tuple[object, ...], out: Path, whole: Path, pid: int) -> None:
    """Go on with the run at once, or begin it again if it had not begun; it must end like the whole one."""
    is_begun = (out / "r" / "config.yaml").exists()
    done = run_warm("trainer", *(("--out", out, "--run", "r", "--resume") if is_begun else words), "--workers", 0)
    wait_for_group(pid)
    if done.crash or done.code:
        session.ended("recovered", [("crashed", done.crash or done.err)])
    else:
        session.ended("recovered", other_training(out / "r", whole))


def _wait_for(path: Path, is_alive: Callable[[], bool]) -> float:
    """When the file was there, or the process at its end."""
    while not path.exists() and is_alive():
        time.sleep(0.002)
    return time.monotonic()
