"""Every fault of an object store, under `generate` and `verify`: once, and then it is asked again; or for good."""

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.drill.commands import Done
from tests.drill.fault_proxy import FaultKind
from tests.drill.folders import Problem, hashes, make_photos
from tests.drill.s3_server import Bucket, S3Server, environment, fresh_bucket
from tests.drill.session import Session
from tests.drill.warm import run_warm

READ: tuple[FaultKind, ...] = (
    "500", "503", "reset", "answer_lost", "reset_body", "truncate", "stall", "stall_body", "wrong_bytes",
)  # fmt: skip
WRITE: tuple[FaultKind, ...] = ("500", "503", "reset", "answer_lost", "reset_body", "stall", "stall_body")
_SILENCE_S = 2.0  # after which the store is asked again
# What is done, to which requests the fault happens, and which faults there are.
KINDS: list[tuple[str, str, str, FaultKind]] = [
    *(("generate", "GET", "*.jpg", fault) for fault in READ),
    *(("generate", "PUT", "*.tar", fault) for fault in WRITE),
    *(("generate", "PUT", "*.json", fault) for fault in WRITE),
    *(("verify", "GET", "*.tar", fault) for fault in READ),
    *(("verify", "GET", "*.idx", fault) for fault in READ),
]
_WORDS = ("-s", 2, "--size", 64, "--shard-bytes", "200KB", "--workers", 0, "--auto")


def break_stores(session: Session) -> None:
    """Each fault once, and each for good, at a random one of the requests."""
    photos, whole = make_photos(session.scratch / "photos", 24), session.scratch / "whole"
    done = run_warm("shardgen", "generate", "-i", photos, "-o", whole, *_WORDS)
    assert done.code == 0, done.err
    done_here: set[tuple[str, bool]] = set()
    with S3Server() as server:
        for number in session.cases(lambda number: " ".join(KINDS[number // 2 * 7 % len(KINDS)])):
            what, method, key, fault = KINDS[number // 2 * 7 % len(KINDS)]
            times = (1, math.inf)[number % 2]
            done_here.add((f"{what} {method} {key} {fault}", times > 1))
            with fresh_bucket(server) as bucket:
                bucket.put_folder(photos, "photos")
                if what == "verify":
                    bucket.put_folder(whole, "shards")
                bucket.proxy.break_next(fault, method, key, times, skip=session.rng.randrange(3))
                _judge(session, bucket, what, whole, fails=times > 1)
    once, for_good = (sum(goes_on == kind for _, goes_on in done_here) for kind in (False, True))
    session.tally.note = (
        f"of {len(KINDS)} faults when reading or writing, {once} were injected once, "
        f"{for_good} until the command gave up"
    )


def _judge(session: Session, bucket: Bucket, what: str, whole: Path, fails: bool) -> None:
    """A fault that happens once changes nothing; one that goes on is named, and the same command goes on after it."""
    problems: list[Problem] = []
    done = _run(bucket, what)
    if not bucket.proxy.faults:
        problems.append(("crashed", "the fault never happened"))
    if fails:
        if not done.is_named:
            problems.append(("crashed", f"expected a message: {done.crash or done}"))
        problems += [("half_written", name) for name in _other(bucket, whole)[0]]
        bucket.proxy.heal()
        done = _run(bucket, what)
    if done.code or done.crash:
        problems.append(("crashed", f"{done.crash or done}"))
    wrong, missing = _other(bucket, whole)
    problems += [("silent", name) for name in wrong] + [("samples_lost", name) for name in missing]
    session.ended("named" if fails else "recovered", problems)


def _run(bucket: Bucket, what: str) -> Done:
    target = f"{bucket.address}/shards"
    words: tuple[Any, ...] = ("verify", target, "--workers", 1)
    if what == "generate":
        words = ("generate", "-i", f"{bucket.address}/photos", "-o", target, *_WORDS)
    return run_warm("shardgen", *words, prepare=(use_store, (bucket.proxy.endpoint,)))


def use_store(endpoint: str) -> None:
    os.environ.update(environment(endpoint, _SILENCE_S))


def _other(bucket: Bucket, whole: Path) -> tuple[list[str], list[str]]:
    """Objects with other bytes than the undisturbed run's files, and those that are missing. Markers hold times."""
    folder = Path(tempfile.mkdtemp(prefix="drill-objects-"))
    for name, content in bucket.objects("shards").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    found, expected = ({n: d for n, d in hashes(path).items() if _is_timeless(n)} for path in (folder, whole))
    shutil.rmtree(folder)
    return [n for n, d in found.items() if expected.get(n) != d], sorted(expected.keys() - found.keys())


def _is_timeless(name: str) -> bool:
    return name.endswith((".tar", ".idx", "manifest.json"))
