"""Inject faults of an object store into `generate` and `verify`: once, or until the command gives up."""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.drill.commands import Command, Problem, Result
from tests.drill.fault_proxy import READ_FAULTS, WRITE_FAULTS, FaultKind
from tests.drill.folders import differences, hashes, make_photos, partial_files
from tests.drill.s3_server import Bucket, S3Server, environment, fresh_bucket
from tests.drill.session import Session
from tests.drill.warm import run_warm

_ARGS = ("-s", 2, "--size", 64, "--shard-bytes", "200KB", "--workers", 0, "--auto")
_TIMEOUT_S = 2.0


class StoreFault(NamedTuple):
    """A fault, the command, and the method and key pattern of the requests that fail."""

    command: str
    method: str
    key: str
    kind: FaultKind


FAULTS = [
    *(StoreFault("generate", "GET", "*.jpg", kind) for kind in READ_FAULTS),
    *(StoreFault("generate", "PUT", "*.tar", kind) for kind in WRITE_FAULTS),
    *(StoreFault("generate", "PUT", "*.json", kind) for kind in WRITE_FAULTS),
    *(StoreFault("verify", "GET", "*.tar", kind) for kind in READ_FAULTS),
    *(StoreFault("verify", "GET", "*.idx", kind) for kind in READ_FAULTS),
]

Run = Callable[[], Result]
Check = Callable[[bool], list[Problem]]  # checks the output of a command; the argument is whether it succeeded


def break_stores(session: Session) -> None:
    """Inject each fault into a random one of the requests."""
    photos, whole = make_photos(session.scratch / "photos", 24), session.scratch / "whole"
    run_warm("shardgen", "generate", "-i", photos, "-o", whole, *_ARGS).check()
    undisturbed = hashes(whole, with_markers=False)

    def prepare(fault: StoreFault, bucket: Bucket) -> tuple[Run, Check]:
        bucket.put_folder(photos, "photos")
        command: Command = ("shardgen", "generate", "-i", f"{bucket.address}/photos", *_ARGS, "-o")
        if fault.command == "verify":
            bucket.put_folder(whole, "shards")
            command = ("shardgen", "verify", "--workers", 1)
        return (
            lambda: run_warm(*command, f"{bucket.address}/shards"),
            lambda is_success: _check(bucket, undisturbed, is_success),
        )

    inject(session, FAULTS, prepare, max_skip=2)
    num_once, num_lasting = (session.times + 1) // 2, session.times // 2
    session.tally.note = (
        f"{len(FAULTS)} faults when reading or writing; {min(num_once, len(FAULTS))} were injected once, "
        f"{min(num_lasting, len(FAULTS))} until the command gave up"
    )


def _check(bucket: Bucket, undisturbed: dict[str, str], is_success: bool) -> list[Problem]:
    """Download the shards without their markers, which contain modification times, and compare them."""
    with tempfile.TemporaryDirectory(prefix="drill-objects-") as name:
        folder = Path(name)
        bucket.download("shards", folder)
        for marker in {*folder.rglob("*.json")} - {*folder.rglob("manifest.json")}:
            marker.unlink()
        return differences(folder, undisturbed) if is_success else partial_files(folder, undisturbed)


def inject(
    session: Session,
    faults: Sequence[StoreFault],
    prepare: Callable[[StoreFault, Bucket], tuple[Run, Check]],
    max_skip: int = 0,
) -> None:
    """Inject each fault in two cases: once, and until the command gives up.

    `prepare` fills a new bucket. A single fault must not change the output. A lasting one must be reported and leave no
    partial files, and the same command must succeed afterwards.
    """

    def fault_of(number: int) -> StoreFault:
        return faults[number // 2 * 7 % len(faults)]  # spreads a few cases over all commands

    with S3Server() as server:
        for number in session.cases(lambda number: " ".join(fault_of(number))):
            fault, is_lasting = fault_of(number), number % 2 == 1
            with fresh_bucket(server) as bucket:
                os.environ.update(environment(bucket.proxy.endpoint, _TIMEOUT_S))
                run, check = prepare(fault, bucket)
                times, skip = math.inf if is_lasting else 1, session.rng.randint(0, max_skip)
                bucket.proxy.break_next(fault.kind, fault.method, fault.key, times, skip)
                result = run()
                problems = [] if bucket.proxy.faults else [("crashed", "the fault was never injected")]
                if is_lasting:
                    problems += result.problems_unless_reported() + check(False)
                    bucket.proxy.heal()
                    result = run()
                problems += result.problems_unless_success() or check(True)
            session.finish("named" if is_lasting else "recovered", problems)
