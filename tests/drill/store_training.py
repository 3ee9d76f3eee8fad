"""Inject faults of an object store into training: it reads shards through a cache and saves the run to the store."""

import shutil
import tempfile
from pathlib import Path

from tests.drill.commands import Problem, Result
from tests.drill.fault_proxy import READ_FAULTS, WRITE_FAULTS
from tests.drill.folders import sha256
from tests.drill.s3_server import Bucket
from tests.drill.session import Session
from tests.drill.stores import Check, Run, StoreFault, inject
from tests.drill.training import SMALL, small_shards, training_differences
from tests.drill.warm import run_warm

FAULTS = [
    *(StoreFault("train", "GET", "*.tar", kind) for kind in READ_FAULTS),
    *(StoreFault("train", "GET", "*/manifest.json", kind) for kind in READ_FAULTS),
    *(StoreFault("train", "PUT", "*/state.pt", kind) for kind in WRITE_FAULTS),
    *(StoreFault("train", "PUT", "*/model.pth", kind) for kind in WRITE_FAULTS),
]
_STEPS = ("--steps", 6, "--val-every", 3, "--workers", 0)


def break_training(session: Session) -> None:
    """Inject each fault into the first of the requests."""
    shards, cache, whole = small_shards(session.scratch), session.scratch / "cache", session.scratch / "whole"
    run_warm("trainer", "--shards", shards, *SMALL, *_STEPS, "--out", whole).check()

    def prepare(fault: StoreFault, bucket: Bucket) -> tuple[Run, Check]:
        shutil.rmtree(cache, ignore_errors=True)
        bucket.put_folder(shards, "shards/scale_2x")
        return lambda: _train(bucket, cache), lambda is_success: _check(bucket, cache, whole / "r", is_success)

    inject(session, FAULTS, prepare)
    session.tally.note = (
        f"{len(FAULTS)} faults when reading shards or saving the run, each injected once in one case and until the run "
        "gives up in another"
    )


def _train(bucket: Bucket, cache: Path) -> Result:
    """Start the run, or resume it if it has saved anything."""
    args: tuple[object, ...] = ("--shards", f"{bucket.address}/shards/scale_2x", *SMALL, *_STEPS, "--cache", cache)
    if "config.yaml" in bucket.keys("runs/r"):
        args = ("--run", "r", "--resume")
    return run_warm("trainer", *args, "--out", f"{bucket.address}/runs")


def _check(bucket: Bucket, cache: Path, undisturbed: Path, is_success: bool) -> list[Problem]:
    """Report cached files whose SHA-256 is not their name and, after success, differences of the run."""
    problems = [("half_written", tar.name) for tar in cache.glob("*.tar") if sha256(tar) != tar.stem]
    if is_success:
        with tempfile.TemporaryDirectory(prefix="drill-run-") as folder:
            bucket.download("runs/r", Path(folder))
            problems += training_differences(Path(folder), undisturbed)
    return problems
