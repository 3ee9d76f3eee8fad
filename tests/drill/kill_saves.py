"""Kill a command with SIGKILL while it saves a file, for every kind of file and every phase of the save."""

import shutil
import signal

from tests.drill.dies import PHASES, arm
from tests.drill.folders import differences, hashes, make_photos, partial_files
from tests.drill.session import Session
from tests.drill.training import resume_or_restart, training, training_differences
from tests.drill.warm import run_warm

# Patterns of file names, and how many such files a run saves at least.
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
_APPENDED = "journal.jsonl"  # never renamed; the trainer removes an incomplete last line
_STEPS = ("--steps", 9, "--val-every", 3, "--workers", 0)
_GENERATE = ("-s", 2, 4, "--size", 64, "--shard-bytes", "100KB", "--workers", 0, "--auto", "-o")
_COUNTS = {**_OF_GENERATE, **_OF_TRAINING}
MOMENTS = [(pattern, phase) for pattern in _COUNTS for phase in (PHASES[:2] if pattern == _APPENDED else PHASES)]


def kill_saves(session: Session) -> None:
    """Try each phase of each kind of file once, then repeat; which of the files of that kind is random."""
    whole, output = session.scratch / "whole", session.scratch / "output"
    generate = ("shardgen", "generate", "-i", make_photos(session.scratch / "photos", 40), *_GENERATE)
    train = training(session.scratch / "small", *_STEPS)
    run_warm(*generate, whole / "g").check()
    run_warm(*train, whole).check()
    undisturbed = hashes(whole / "g")
    step = max(1, len(MOMENTS) // session.times)  # spreads a few cases over all kinds
    for number in session.cases(lambda number: " ".join(MOMENTS[number * step % len(MOMENTS)])):
        pattern, phase = MOMENTS[number * step % len(MOMENTS)]
        is_opened_once = (pattern, phase) == (_APPENDED, "opened")
        skip = 0 if is_opened_once else session.rng.randrange(_COUNTS[pattern])
        is_generate = pattern in _OF_GENERATE
        command = (*(generate if is_generate else train), output)
        killed = run_warm(*command, prepare=(arm, (pattern, phase, skip)))
        if killed.code != -signal.SIGKILL:
            problems = [("crashed", f"not killed after {skip} such files: {killed}")]
        elif is_generate:
            problems = partial_files(output, undisturbed) + run_warm(*command).problems_unless_success()
            problems = problems or differences(output, undisturbed)
        else:
            problems = run_warm(*resume_or_restart(command, output)).problems_unless_success()
            problems = problems or training_differences(output / "r", whole / "r")
        session.finish("recovered", problems)
        shutil.rmtree(output, ignore_errors=True)
    phases = ", ".join(PHASES).replace("half", "half written")
    session.tally.note = f"{len(_COUNTS)} kinds of files, in the phases {phases}"
