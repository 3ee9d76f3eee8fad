"""SIGKILL at a random moment of training, and the run resumed."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from drill import commands
from drill.folders import make_photos, other_training, wait_for_group
from drill.session import Session

SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--device", "cpu", "--run", "r")
_STEPS = ("--steps", 120, "--val-every", 30)


def small_shards(folder: Path) -> Path:
    """Shards of one scale to train on."""
    photos = make_photos(folder / "photos", 40)
    words = ("-s", 2, "--size", 64, "--shard-bytes", "300KB", "--workers", 0, "--auto")
    done = commands.run("shardgen", "generate", "-i", photos, "-o", folder / "shards", *words)
    assert done.code == 0, done.err
    return folder / "shards" / "scale_2x"


def kill_training(session: Session) -> None:
    """One case in four from the start of the process on, the others while it trains; with and without data workers."""
    words = ("--shards", small_shards(session.scratch), *SMALL, *_STEPS)
    whole = session.scratch / "whole"
    process = commands.start("trainer", *words, "--out", whole, "--workers", 0)
    start_s = time.monotonic()
    begun_s = _wait_for(whole / "r" / "config.yaml", process)
    assert process.wait(commands.TIMEOUT_S) == 0
    train_s, total_s = time.monotonic() - begun_s, time.monotonic() - start_s
    for number in session.cases():
        out = session.scratch / f"out-{number}"
        given = (*words, "--out", out, "--workers", session.rng.choice((0, 0, 2)))
        share, kill = session.rng.random(), session.rng.choice((os.kill, os.killpg))
        process = commands.start("trainer", *given)
        if number % 4:
            _wait_for(out / "r" / "config.yaml", process)
        time.sleep(share * (train_s if number % 4 else total_s))
        kill(process.pid, signal.SIGKILL)
        process.wait()
        resume(session, given, out, whole / "r", process.pid)
        shutil.rmtree(out, ignore_errors=True)
    session.tally.note = f"an undisturbed run takes {total_s:.1f} s, {train_s:.1f} s of it after its start"


def resume(session: Session, words: tuple[object, ...], out: Path, whole: Path, pid: int) -> None:
    """Go on with the run at once, or begin it again if it had not begun; it must end like the whole one."""
    is_begun = (out / "r" / "config.yaml").exists()
    again = ("--out", out, "--run", "r", "--resume", "--workers", 0) if is_begun else words
    done = commands.run("trainer", *again)
    wait_for_group(pid)
    if done.crash or done.code:
        session.ended("recovered", [("crashed", done.crash or done.err)])
    else:
        session.ended("recovered", other_training(out / "r", whole))


def _wait_for(path: Path, process: "subprocess.Popen[str]") -> float:
    """When the file was there, or the process at its end."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()
