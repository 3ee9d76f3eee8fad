"""Random damage to tars, indexes, manifests and markers: harmless, or named by `verify` and by the trainer.

A case runs `verify` and the trainer's own reading in this process, through the functions that the commands call; every
fortieth is also trained on by the real command. What is compared is every pixel of an epoch's batches and of the
validation images.
"""

import contextlib
import hashlib
import io
import shutil
from pathlib import Path

from shardgen.cli import main as shardgen_main
from srshards.errors import ReportedError
from srshards.shards.opening import open_shards
from tests.drill import commands
from tests.drill.commands import Done
from tests.drill.damage import damage_folder
from tests.drill.folders import make_photos
from tests.drill.kill_training import SMALL
from tests.drill.session import Session
from trainer.evaluation.evaluate import shard_pairs
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig

_SETS = (("--codec", "npy"), ("--codec", "png"), ("--degradation", "bsrgan-light", "--variants", 2))
_REAL_EVERY = 40
_DAMAGED = "a damaged sample is named"


def corrupt(session: Session) -> None:
    """All of it, on shards of raw and of compressed pixels, and of two variants."""
    photos = make_photos(session.scratch / "photos", 30, (40, 50))
    sets = []
    for number, words in enumerate(_SETS):
        output = session.scratch / f"set-{number}"
        size = ("-s", 2, "--size", 32, "--shard-bytes", "40KB", "--workers", 0, "--val-fraction", 0.2, "--auto")
        done = commands.run("shardgen", "generate", "-i", photos, "-o", output, *size, *words)
        assert done.code == 0, done.err
        folder = output / "scale_2x"
        both = [trained_on(folder, verify) for verify in (True, False)]
        assert both[0] == both[1] and verified(folder).code == 0
        sets.append((folder, both[0]))
    for number in session.cases():
        folder, sound = sets[number % len(sets)]
        mine = session.scratch / "mine" / "scale_2x"
        shutil.copytree(folder, mine)
        session.begin_as(f"set {number % len(sets)}, {damage_folder(mine, session.rng)}")
        _judge(session, mine, sound, is_real=number % _REAL_EVERY == 0)
        shutil.rmtree(mine)
    session.tally.note = f"every {_REAL_EVERY}th case also runs the trainer with `--verify` in a separate process"


def _judge(session: Session, folder: Path, sound: str, is_real: bool) -> None:
    checked, careful, trusting = verified(folder), trained_on(folder, True), trained_on(folder, False)
    problems = []
    if checked.crash:
        problems.append(("crashed", f"verify: {checked.crash}"))
    if careful != sound:
        if not careful.startswith("named: "):
            problems.append(("silent", "the trainer with --verify took other pixels"))
        if checked.code == 0:
            problems.append(("silent", f"verify says nothing, where the trainer says {careful}"))
    for said in (careful, trusting):
        if said.startswith("crash: "):
            problems.append(("crashed", f"the trainer: {said}"))
    if is_real:
        words = ("--shards", folder, *SMALL, "--patch-size", 16, "--steps", 2, "--workers", 0, "--verify")
        done = commands.run("trainer", *words, "--out", folder.parent / "runs")
        if done.crash or (done.code == 0 and careful.startswith("named: ") and careful != f"named: {_DAMAGED}"):
            problems.append(("crashed" if done.crash else "silent", f"python -m trainer: {done}; {careful}"))
    session.ended("named" if careful != sound else "harmless", problems)


def verified(folder: Path) -> Done:
    """`shardgen verify`, here."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            shardgen_main(["verify", str(folder), "--workers", "1"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException as error:
        return Done(-1, out.getvalue(), f"Traceback: {error!r}")
    return Done(code, out.getvalue(), err.getvalue())


def trained_on(folder: Path, verify: bool) -> str:
    """What a run would see, as a hash of it; or `named: ` and why it would see nothing; or `crash: `."""
    config = TrainConfig(
        folder, model="ultra_lite", epochs=2, batch_size=4, patch_size=16, patches_per_sample=1, workers=0, device="cpu"
    )
    seen = hashlib.sha256()
    try:
        shards = open_shards(folder, verify=verify)
        plan = checked_plan(config, shards)
        for batch in plan.loader.steps(0, plan.total_steps):
            if batch.damaged:
                return f"named: {_DAMAGED}"
            for patches in (batch.hr, batch.input):
                seen.update(patches.contiguous().numpy().tobytes())
        for pair in shard_pairs(shards, "val", upsampled=False):
            seen.update(pair.name.encode() + pair.hr.tobytes() + pair.lr.tobytes())
    except ReportedError as error:
        return f"named: {error}"
    except Exception as error:
        return f"crash: {error!r}"
    return seen.hexdigest()
