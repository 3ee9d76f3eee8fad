"""SIGKILL in every kind of save, at each moment of it: opened, half written, written, flushed, renamed."""

import shutil
import signal
from typing import Any

from tests.drill.dies import PHASES, arm
from tests.drill.folders import Problem, differences, hashes, make_photos, other_training, unfinished
from tests.drill.kill_training import SMALL, small_shards
from tests.drill.session import Session
from tests.drill.warm import run_warm

# The file's final name, and how many of it a run writes, at least.
_OF_GENERATE = {
    "*-00000?.tar": 4,
    "*-00000?.idx": 4,
    "*-00000?.json": 4,
    "manifest.json": 2,
    "processing_stats.json": 1,
}
_OF_TRAINING = {
    "model.pth": 3,
    "best.pth": 1,
    "state.pt": 3,
    "config.yaml": 1,
    "plan.json": 1,
    "step-*.png": 3,
    "journal.jsonl": 6,
}
_APPENDED = "journal.jsonl"  # lines that can be watched: never renamed, and a half line is taken back
_STEPS = ("--steps", 9, "--val-every", 3, "--workers", 0)
_GENERATE = ("-s", 2, 4, "--size", 64, "--shard-bytes", "100KB", "--workers", 0, "--auto")
MOMENTS = [
    (pattern, phase)
    for pattern in (*_OF_GENERATE, *_OF_TRAINING)
    for phase in (PHASES[:2] if pattern == _APPENDED else PHASES)
]


def kill_saves(session: Session) -> None:
    """Each moment of each kind once, then again from the beginning, at another of the run's files."""
    photos = make_photos(session.scratch / "photos", 40)
    words = ("generate", "-i", photos, *_GENERATE)
    assert run_warm("shardgen", *words, "-o", session.scratch / "whole").code == 0
    undisturbed = hashes(session.scratch / "whole")
    shards = small_shards(session.scratch / "small")
    training = ("--shards", shards, *SMALL, *_STEPS)
    assert run_warm("trainer", *training, "--out", session.scratch / "runs").code == 0
    step = max(1, len(MOMENTS) // session.times)  # where they are few, they are spread over all kinds
    for number in session.cases(lambda number: " ".join(MOMENTS[number * step % len(MOMENTS)])):
        pattern, phase = MOMENTS[number * step % len(MOMENTS)]
        counts = {**_OF_GENERATE, **_OF_TRAINING}
        once = (pattern, phase) == (_APPENDED, "opened")  # and then kept open
        passes = 0 if once else session.rng.randrange(counts[pattern])
        output = session.scratch / "output"
        if pattern in _OF_GENERATE:
            given: tuple[Any, ...] = ("shardgen", *words, "-o", output)
        else:
            given = ("trainer", *training, "--out", output)
        died = run_warm(*given, prepare=(arm, (pattern, phase, passes)))
        if died.code != -signal.SIGKILL:
            session.ended("recovered", [("crashed", f"it did not die at {passes}: {died}")])
        elif pattern in _OF_GENERATE:
            problems = unfinished(output, undisturbed)
            problems += again(*given)
            session.ended("recovered", problems or differences(output, undisturbed))
        else:
            if (output / "r" / "config.yaml").exists():
                given = ("trainer", "--out", output, "--run", "r", "--resume")
            problems = again(*given)
            session.ended("recovered", problems or other_training(output / "r", session.scratch / "runs" / "r"))
        shutil.rmtree(output, ignore_errors=True)
    session.tally.note = f"{len(_OF_GENERATE) + len(_OF_TRAINING)} kinds of files x the phases {', '.join(PHASES)}"


def again(*words: object) -> list[Problem]:
    """The command once more, which must now end well."""
    program, *rest = words
    done = run_warm(str(program), *rest)
    return [("crashed", done.crash or done.err)] if done.crash or done.code else []
