"""Every fault of an object store under training: shards come from it by way of a cache, and the run is put into it."""

import hashlib
import math
import shutil
from pathlib import Path

from tests.drill.commands import Done
from tests.drill.fault_proxy import FaultKind
from tests.drill.folders import Problem, other_training
from tests.drill.kill_training import SMALL, small_shards
from tests.drill.s3_server import Bucket, S3Server, fresh_bucket
from tests.drill.session import Session
from tests.drill.stores import READ, WRITE, use_store
from tests.drill.warm import run_warm

# To which requests the fault happens.
KINDS: list[tuple[str, str, FaultKind]] = [
    *(("GET", "*.tar", fault) for fault in READ),
    *(("GET", "*/manifest.json", fault) for fault in READ),
    *(("PUT", "*/state.pt", fault) for fault in WRITE),
    *(("PUT", "*/model.pth", fault) for fault in WRITE),
]
_STEPS = ("--steps", 6, "--val-every", 3, "--workers", 0)


def break_training(session: Session) -> None:
    """Each fault once, and each for good."""
    shards, whole = small_shards(session.scratch), session.scratch / "whole"
    done = run_warm("trainer", "--shards", shards, *SMALL, *_STEPS, "--out", whole)
    assert done.code == 0, done.err
    with S3Server() as server:
        for number in session.cases(lambda number: " ".join(KINDS[number // 2 * 7 % len(KINDS)])):
            method, key, fault = KINDS[number // 2 * 7 % len(KINDS)]
            times = (1, math.inf)[number % 2]
            cache = session.scratch / f"cache-{number}"
            with fresh_bucket(server) as bucket:
                bucket.put_folder(shards, "shards/scale_2x")
                bucket.proxy.break_next(fault, method, key, times)
                problems = _problems(bucket, cache, whole / "r", fails=times > 1)
            session.ended("named" if times > 1 else "recovered", problems)
            shutil.rmtree(cache, ignore_errors=True)
    session.tally.note = (
        f"{len(KINDS)} faults when reading shards or saving the run, each both once and until the run gives up"
    )


def _problems(bucket: Bucket, cache: Path, whole: Path, fails: bool) -> list[Problem]:
    """A fault that happens once changes nothing; one that goes on is named, and the run goes on after it."""
    problems: list[Problem] = []
    done = _train(bucket, cache)
    if not bucket.proxy.faults:
        problems.append(("crashed", "the fault never happened"))
    if fails:
        if not done.is_named:
            problems.append(("crashed", f"expected a message: {done.crash or done}"))
        problems += [("half_written", name) for name in _spoilt(cache)]
        bucket.proxy.heal()
        done = _train(bucket, cache)
    if done.code or done.crash:
        return [*problems, ("crashed", f"{done.crash or done}")]
    problems += [("half_written", name) for name in _spoilt(cache)]
    run = cache.with_name(f"{cache.name}-run")
    for name, content in bucket.objects("runs/r").items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    problems += other_training(run, whole)
    shutil.rmtree(run)
    return problems


def _train(bucket: Bucket, cache: Path) -> Done:
    """Begin the run, or go on with it when it has begun."""
    words: tuple[object, ...] = ("--out", f"{bucket.address}/runs", "--run", "r")
    if "config.yaml" in bucket.keys("runs/r"):
        words = (*words, "--resume")
    else:
        words = ("--shards", f"{bucket.address}/shards/scale_2x", *SMALL, *_STEPS, "--cache", cache, *words)
    return run_warm("trainer", *words, prepare=(use_store, (bucket.proxy.endpoint,)))


def _spoilt(cache: Path) -> list[str]:
    """Files of the cache that are not what their names say: the sha256 of what is in them."""
    tars = cache.glob("*.tar")
    return [tar.name for tar in tars if hashlib.sha256(tar.read_bytes()).hexdigest() != tar.stem]
