"""Kill training with SIGKILL at a random moment, then resume the run."""

import os
import shutil
import signal
import time
from pathlib import Path

from tests.drill import commands
from tests.drill.commands import Command, wait_until
from tests.drill.folders import wait_for_group
from tests.drill.session import Session
from tests.drill.training import config_path, resume_or_restart, training, training_differences
from tests.drill.warm import Warm, run_warm

_STEPS = ("--steps", 120, "--val-every", 30, "--save-every", 7)
_COLD_EVERY = 5


def kill_training(session: Session) -> None:
    """Kill most runs while they train; every fifth with data workers, as a group, at any time after its start."""
    train, whole = training(session.scratch, *_STEPS), session.scratch / "whole"
    start_s = time.monotonic()
    process = Warm(*train, whole, "--workers", 0)
    wait_until(config_path(whole).exists, process.poll)
    begin_s = time.monotonic()
    process.wait().check()
    train_s, total_s = time.monotonic() - begin_s, time.monotonic() - start_s
    for number in session.cases():
        out, share = session.scratch / f"out-{number}", session.rng.random()
        command = (*train, out, "--workers", 0 if number % _COLD_EVERY else 2)
        pid = (
            _kill_warm(command, out, share * train_s) if number % _COLD_EVERY else _kill_cold(command, share * total_s)
        )
        result = run_warm(*resume_or_restart(command, out), "--workers", 0)
        wait_for_group(pid)
        problems = result.problems_unless_success() or training_differences(out / "r", whole / "r")
        session.finish("recovered", problems)
        shutil.rmtree(out, ignore_errors=True)
    session.tally.note = f"an undisturbed run takes {total_s:.1f} s, {train_s:.1f} s of it after start-up"


def _kill_warm(command: Command, out: Path, seconds: float) -> int:
    """Kill a run of a warm process after it has trained for so many seconds. Return its process group."""
    process = Warm(*command)
    wait_until(config_path(out).exists, process.poll)
    time.sleep(seconds)
    process.kill()
    return process.pid


def _kill_cold(command: Command, seconds: float) -> int:
    """Kill a run and its workers so many seconds after PyTorch was loaded. Return its process group."""
    process = commands.start(*command)
    maps = Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: "libtorch" in maps.read_text(), process.poll)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return process.pid
