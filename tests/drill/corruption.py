"""Damage tars, indexes, manifests and markers at random: it must be harmless, or reported by `verify` and the trainer.

A case calls the functions behind `verify` and the trainer in this process; every fortieth case also runs the trainer.
All pixels of the batches of two epochs and of the validation images are compared.
"""

import contextlib
import hashlib
import io
import shutil
from pathlib import Path

from shardgen.cli import main as shardgen_main
from srshards.errors import ReportedError
from srshards.shards.opening import open_shards
from tests.drill.commands import Problem, Result
from tests.drill.damage import damage_folder
from tests.drill.folders import make_photos
from tests.drill.session import Session
from tests.drill.training import SMALL
from tests.drill.warm import run_warm
from trainer.evaluation.pairs import shard_pairs
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig

_SETS = (("--codec", "npy"), ("--codec", "png"), ("--degradation", "bsrgan-light", "--variants", 2))
_COMMAND_EVERY = 40
_DAMAGED_SAMPLE = "reported: a damaged sample"


def corrupt(session: Session) -> None:
    """Alternate between sets of shards: raw pixels, compressed pixels, and two degradation variants."""
    photos = make_photos(session.scratch / "photos", 30, (40, 50))
    args = ("-s", 2, "--size", 32, "--shard-bytes", "40KB", "--workers", 0, "--val-fraction", 0.2, "--auto")
    sets = []
    for number, options in enumerate(_SETS):
        output = session.scratch / f"set-{number}"
        run_warm("shardgen", "generate", "-i", photos, "-o", output, *args, *options).check()
        folder = output / "scale_2x"
        pixels = train(folder, verify=True)
        assert pixels == train(folder, verify=False) and verify(folder).code == 0
        sets.append((folder, pixels))
    for number in session.cases():
        folder, pixels = sets[number % len(sets)]
        damaged = session.scratch / "damaged" / "scale_2x"
        shutil.copytree(folder, damaged)
        damage = damage_folder(damaged, session.rng)
        session.describe(f"case {number}: set {number % len(sets)}, {damage}")
        outcome, problems = _compare(damaged, pixels, run_command=number % _COMMAND_EVERY == 0)
        session.finish(outcome, problems)
        shutil.rmtree(damaged)
    session.tally.note = f"every {_COMMAND_EVERY}th case also runs the trainer with `--verify` in a separate process"


def _compare(folder: Path, pixels: str, run_command: bool) -> tuple[str, list[Problem]]:
    """Return the outcome (`named` or `harmless`) and problems; `pixels` is the result of `train` without damage."""
    verified, careful, trusting = verify(folder), train(folder, verify=True), train(folder, verify=False)
    is_reported = careful.startswith("reported: ")
    problems = []
    if verified.crash:
        problems.append(("crashed", f"verify: {verified.crash}"))
    if careful != pixels:
        if not is_reported:
            problems.append(("silent", "the trainer with --verify used other pixels"))
        if verified.code == 0:
            problems.append(("silent", f"verify reports nothing, but the trainer {careful}"))
    problems += [("crashed", f"the trainer {result}") for result in (careful, trusting) if result.startswith("crashed")]
    if run_command:
        args = ("--shards", folder, *SMALL, "--patch-size", 16, "--steps", 2, "--workers", 0, "--verify")
        result = run_warm("trainer", *args, "--out", folder.parent / "runs")
        if result.crash or (result.code == 0 and is_reported and careful != _DAMAGED_SAMPLE):
            problems.append(("crashed" if result.crash else "silent", f"python -m trainer: {result}; {careful}"))
    return "named" if careful != pixels else "harmless", problems


def verify(folder: Path) -> Result:
    """Run `shardgen verify` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            shardgen_main(["verify", str(folder), "--workers", "1"])
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException as error:
        return Result(-1, out.getvalue(), f"Traceback: {error!r}")
    return Result(code, out.getvalue(), err.getvalue())


def train(folder: Path, verify: bool) -> str:
    """Read the shards as training does. Return a hash of all pixels, `reported: ` and the message, or `crashed: `."""
    config = TrainConfig(
        folder, model="ultra_lite", epochs=2, batch_size=4, patch_size=16, patches_per_sample=1, workers=0, device="cpu"
    )
    pixels = hashlib.sha256()
    try:
        shards = open_shards(folder, verify=verify)
        plan = checked_plan(config, shards)
        for batch in plan.loader.steps(0, plan.total_steps):
            if batch.damaged:
                return _DAMAGED_SAMPLE
            for patches in (batch.hr, batch.input):
                pixels.update(patches.contiguous().numpy().tobytes())
        for pair in shard_pairs(shards, "val", upsampled=False):
            pixels.update(pair.name.encode() + pair.hr.tobytes() + pair.lr.tobytes())
    except ReportedError as error:
        return f"reported: {error}"
    except Exception as error:
        return f"crashed: {error!r}"
    return pixels.hexdigest()
