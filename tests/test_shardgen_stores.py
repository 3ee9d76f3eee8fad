"""Photos and shards in an object store: equal bytes as in a folder, and recovery from its faults."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from helpers import TIMEOUT_S, all_files, contract_files, generate, make_photos, run_cli, running, wait_until
from upath import UPath

from shardgen.generate.inputs import list_inputs
from shardgen.generate.run import prepare
from shardgen.planning.config import Config
from shardgen.shard.job import build_shard
from srshards.storage.retry import request
from srshards.storage.store import parse_address
from tests.drill.fault_proxy import READ_FAULTS, WRITE_FAULTS, FaultKind
from tests.drill.s3_server import Bucket

ARGS = ("-s", 2, 3, "--shard-bytes", "100KB")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 photos in three classes: few, because each is uploaded and read through the proxy in most tests."""
    return make_photos(tmp_path_factory.mktemp("photos"), 18)


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `photos`, several per scale. Read-only."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, *ARGS)
    return output


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate folder for the scratch files and locks of a test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is cached
    return folder


@pytest.fixture
def source(photos: Path, s3: Bucket) -> str:
    """The address of a copy of `photos`."""
    return s3.put_folder(photos, "photos")


def stored_files(s3: Bucket, prefix: str = "shards") -> dict[str, str]:
    """As `contract_files`: the SHA-256 of every shard, index, manifest and card."""
    return {
        key: hashlib.sha256(content).hexdigest()
        for key, content in s3.objects(prefix).items()
        if key.endswith((".tar", ".idx", "manifest.json", ".md"))
    }


def shard_files_on(scratch: Path) -> set[str]:
    """Return the names of shard files on scratch."""
    return {name for name in all_files(scratch) if not name.endswith(".lock")}


# ---- without faults


def test_shards_in_a_store_equal_those_in_a_folder(source: str, shards: Path, s3: Bucket, scratch: Path) -> None:
    result = generate(source, f"{s3.address}/shards", *ARGS)
    assert f"Photos  18 of 18 in {source}" in result.stdout
    assert "Store   " in result.stdout and "free" not in result.stdout
    assert stored_files(s3) == contract_files(shards)
    assert s3.keys("shards") == all_files(shards) - {".shardgen.lock"}
    stats = json.loads(s3.objects("shards")["processing_stats.json"])
    assert stats["total_processed"] == 18 and stats["total_failed"] == 0
    assert not shard_files_on(scratch)


def test_every_photo_is_read_and_listed_once(photos: Path, source: str, s3: Bucket) -> None:
    generate(source, f"{s3.address}/shards", *ARGS)
    requests = s3.proxy.requests
    per_photo = {key: n for (method, key), n in requests.items() if key.startswith(f"{s3.name}/photos/") and n}
    names = {f"{s3.name}/photos/{name}" for name in all_files(photos)}
    assert {("GET", name): 1 for name in names}.items() <= requests.items()
    assert set(per_photo) - names == {f"{s3.name}/photos/"} and s3.proxy.count("HEAD", "*/photos/*") == 0
    assert s3.proxy.count("LIST", "*/photos/") == 1
    num_shards = len({key for key in s3.keys("shards") if key.endswith(".tar")})
    assert s3.proxy.count("PUT", "*/shards/scale_*/train-*") + s3.proxy.count("PUT", "*/shards/scale_*/val-*") == (
        3 * num_shards
    )


def test_finished_run_reads_only_listings_and_markers(source: str, s3: Bucket) -> None:
    generate(source, f"{s3.address}/shards", *ARGS)
    markers = [key for key in s3.keys("shards") if key.split("/")[-1].startswith(("train", "val")) and "json" in key]
    s3.proxy.heal()
    result = generate(source, f"{s3.address}/shards", *ARGS)
    assert f"All {len(markers)} shards are up to date." in result.stdout
    assert s3.proxy.count("GET", "*/shards/*.json") == len(markers) + 2, "each marker and each manifest"
    assert s3.proxy.count("GET", "*.tar") == s3.proxy.count("GET", "*/photos/*") == 0
    assert s3.proxy.count("LIST", "*/shards/scale_*") == 2
    assert s3.proxy.count("PUT", "*") == 1, "the probe for write access"


def test_changed_shards_are_rebuilt_and_stale_ones_removed(photos: Path, s3: Bucket, tmp_path: Path) -> None:
    photos_copy = Path(shutil.copytree(photos, tmp_path / "mine"))
    source, target = s3.put_folder(photos_copy, "photos"), f"{s3.address}/shards"
    generate(source, target, *ARGS)
    (photos_copy / "class0" / "img0.jpg").unlink()
    s3.server.delete(s3.name, "photos/class0/img0.jpg")
    result = generate(source, target, *ARGS)
    assert "Shards: 2 built" in result.stdout or "Shards: 4 built" in result.stdout
    generate(photos_copy, tmp_path / "local", *ARGS)
    assert stored_files(s3) == contract_files(tmp_path / "local")
    result = generate(source, target, *ARGS, "--sample", 0.3, "--force")
    generate(photos_copy, tmp_path / "some", *ARGS, "--sample", 0.3)
    assert stored_files(s3) == contract_files(tmp_path / "some"), "shards of removed photos are deleted"


def test_input_and_output_may_be_local_or_in_a_store(photos: Path, shards: Path, s3: Bucket, tmp_path: Path) -> None:
    generate(photos, f"{s3.address}/shards", *ARGS)
    assert stored_files(s3) == contract_files(shards)
    generate(s3.put_folder(photos, "photos"), tmp_path / "out", *ARGS)
    assert contract_files(tmp_path / "out") == contract_files(shards)
    result = generate(f"file://{photos}", f"file://{tmp_path}/again", *ARGS)
    assert contract_files(tmp_path / "again") == contract_files(shards)
    assert f"in {photos}" in result.stdout


def test_worker_processes_write_to_a_store(source: str, shards: Path, s3: Bucket, scratch: Path) -> None:
    arguments = ("generate", "-i", source, "-o", f"{s3.address}/shards", "--size", 64, "--auto", "--workers", 2, *ARGS)
    result = run_cli(*arguments, cwd="/")
    assert result.returncode == 0, result.stderr
    assert stored_files(s3) == contract_files(shards)
    assert not shard_files_on(scratch)


def test_failures_have_the_same_paths_as_in_a_folder(s3: Bucket, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 12)
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.png").write_bytes(b"no picture")
    (photos / "notes.txt").write_bytes(b"no photo")
    source = s3.put_folder(photos, "photos")
    s3.server.put(s3.name, "photos/folder/", b"")
    remote, local = generate(source, f"{s3.address}/shards"), generate(photos, tmp_path / "out")
    assert "1 other file ignored" in remote.stdout and "1 other file ignored" in local.stdout
    assert stored_files(s3) == contract_files(tmp_path / "out")
    failures = json.loads(s3.objects("shards")["scale_4x/manifest.json"])["failures"]
    assert failures == [
        {"path": "empty.jpg", "reason": "empty file"},
        {"path": "text.png", "reason": "not an image, or its header is damaged"},
    ]


def test_object_names_that_are_not_valid_paths_are_failures(s3: Bucket, photos: Path) -> None:
    content = (photos / "class0" / "img0.jpg").read_bytes()
    addresses = ["data::z.jpg", "gs:/b.jpg", "http:/e.jpg", "nope:/q.jpg", "s3:/x.jpg", "a?versionId=null.jpg"]
    names = ["a/good.jpg", "a//twice.jpg", "ö/ü #?%41 +.jpg", *addresses]
    for name in names:
        s3.server.put(s3.name, f"photos/{name}", content)
    generate(f"{s3.address}/photos", f"{s3.address}/shards", "--val-fraction", 0)
    manifest = json.loads(s3.objects("shards")["scale_4x/manifest.json"])
    assert manifest["totals"]["samples"] == 2
    reasons = {failure["path"]: failure["reason"] for failure in manifest["failures"]}
    assert reasons.keys() == {"a//twice.jpg", *addresses}
    assert "its name is not a valid path" in reasons["a//twice.jpg"]
    assert all("its name would be read as an" in reasons[name] for name in addresses)


def test_photo_removed_during_the_run_is_a_failure(s3: Bucket, source: str) -> None:
    s3.proxy.break_next("gone", "GET", "*/photos/class0/img0.jpg")
    generate(source, f"{s3.address}/shards")
    failures = json.loads(s3.objects("shards")["scale_4x/manifest.json"])["failures"]
    assert failures == [{"path": "class0/img0.jpg", "reason": "cannot be read: No such file or directory"}]


# ---- other commands


@pytest.fixture
def stored(shards: Path, s3: Bucket) -> str:
    """The address of a copy of `shards`."""
    return s3.put_folder(shards, "shards")


def test_other_commands_give_equal_results_for_a_store(stored: str, shards: Path, tmp_path: Path) -> None:
    def same(*arguments: object) -> None:
        local = run_cli(*(str(word).replace("SHARDS", str(shards)) for word in arguments))
        remote = run_cli(*(str(word).replace("SHARDS", stored) for word in arguments))
        assert local.returncode == remote.returncode == 0, local.stderr + remote.stderr
        assert remote.stdout.replace(stored, "SHARDS") == local.stdout.replace(str(shards), "SHARDS")

    same("inspect", "SHARDS", "--json")
    same("inspect", "SHARDS", "--shard", "train-000000", "--json")
    same("inspect", "SHARDS", "--sample", "000000000001", "--json")
    same("verify", "SHARDS")
    same("rebuild", "000000000001", "SHARDS")
    same("preview", "SHARDS/scale_2x", "-o", tmp_path / "preview.png")
    same("unpack", "SHARDS", "-o", tmp_path / "loose")
    local, remote = tmp_path / "here", tmp_path / "there"
    for source, output in ((shards, local), (stored, remote)):
        assert run_cli("preview", f"{source}/scale_3x", "-o", output / "preview.png").returncode == 0
        assert run_cli("unpack", f"{source}/scale_3x", "-o", output / "loose").returncode == 0
    assert all_files(local) == all_files(remote) and len(all_files(local)) == 1 + 1 + 3 * 18, (
        "a preview, and whose files they are"
    )
    assert all((local / name).read_bytes() == (remote / name).read_bytes() for name in all_files(local))


def test_verify_reports_and_removes_broken_shards(stored: str, s3: Bucket, source: str, shards: Path) -> None:
    tar = s3.server.get(s3.name, "shards/scale_2x/train-000001.tar")
    s3.server.put(s3.name, "shards/scale_2x/train-000001.tar", tar[:1000] + b"X" + tar[1001:])
    s3.server.delete(s3.name, "shards/scale_2x/train-000000.idx")
    s3.server.put(s3.name, "shards/scale_3x/train-000000.tar", tar[:-1])
    s3.server.delete(s3.name, "shards/scale_3x/train-000001.tar")
    result = run_cli("verify", stored)
    assert result.returncode == 1
    for reason in (
        "scale_2x/train-000001.tar: its SHA-256 differs from its done marker",
        "scale_2x/train-000000.tar: [Errno 2] No such file or directory: ",
        "scale_3x/train-000000.tar: ",
        "scale_3x/train-000001.tar: missing",
    ):
        assert f"{stored}/{reason}" in result.stderr
    assert "4 of 8 shards and manifests are broken; pass --fix to remove them\n" in result.stderr
    before = s3.keys("shards")
    assert run_cli("verify", stored, "--fix").returncode == 1
    removed = before - s3.keys("shards")
    assert {name for name in removed if "manifest" in name} == {"scale_2x/manifest.json", "scale_3x/manifest.json"}
    assert {name.split(".")[0] for name in removed} == {
        *(f"scale_{scale}x/{name}" for scale in (2, 3) for name in ("manifest", "train-000000", "train-000001"))
    }
    generate(source, stored, *ARGS)
    assert stored_files(s3) == contract_files(shards)
    assert run_cli("verify", stored).returncode == 0


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "-i", "s3://BUCKET/nothing", "--auto"), "no such folder: s3://BUCKET/nothing; pass the folder"),
        (("generate", "-i", "s3://no-such-bucket/x", "--auto"), "no such folder: s3://no-such-bucket/x"),
        (("generate", "-i", "s3://BUCKET/only/notes.txt", "--auto"), "is a file; pass a folder of photos as --input"),
        (("generate", "-i", "s3://BUCKET/only", "--auto"), "no photos in s3://BUCKET/only: expected files ending in"),
        (("generate", "-i", "s3://", "--auto"), "s3://: expected an address with a bucket, e.g. s3://bucket/folder"),
        (("verify", "hf://"), "hf://: expected an address with a repository, e.g. hf://datasets/USER/NAME"),
        (("verify", "s3:///shards"), "s3:///shards: expected an address with a bucket, e.g. s3://bucket/folder"),
        (("generate", "-i", "nope://x", "--auto"), "unknown store nope://; expected a folder, or e.g. s3://"),
        (
            ("generate", "-i", "gs://x/y", "--auto"),
            "gs:// needs gcsfs, which is not installed; run `pip install gcsfs`",
        ),
        (("inspect", "s3://BUCKET/nothing"), "no such folder: s3://BUCKET/nothing"),
        (("verify", "s3://BUCKET/only"), "no shards in s3://BUCKET/only: expected manifest.json"),
        (
            ("unpack", "s3://BUCKET/only", "-o", "s3://BUCKET/x"),
            "s3://BUCKET/x is in an object store; expected a local path",
        ),
        (
            ("preview", "s3://BUCKET/only", "-o", "s3://BUCKET/x"),
            "s3://BUCKET/x is in an object store; expected a local path",
        ),
        (("preview", "s3://BUCKET/only/notes.txt"), "is a file; to see a photo degraded by a recipe"),
        (
            ("preview", "s3://BUCKET/a.jpg", "--recipe", "realesrgan"),
            "is in an object store; pass a local photo with --recipe",
        ),
    ],
)
def test_invalid_addresses_are_errors(arguments: tuple[str, ...], message: str, s3: Bucket) -> None:
    s3.server.put(s3.name, "only/notes.txt", b"notes")
    result = run_cli(*(word.replace("BUCKET", s3.name) for word in arguments))
    assert result.returncode == 2, result.stderr
    assert message.replace("BUCKET", s3.name) in result.stderr and "Traceback" not in result.stderr


def test_missing_output_bucket_is_an_error_at_the_start(photos: Path, s3: Bucket) -> None:
    result = run_cli("generate", "-i", photos, "-o", "s3://no-such-bucket/shards", "--auto")
    assert result.returncode == 1
    assert "cannot write s3://no-such-bucket/shards/.shardgen.probe: " in result.stderr
    assert "; create the bucket first, or pass another address" in result.stderr


def test_invalid_timeout_is_an_error(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_STORE_TIMEOUT", "soon")
    result = run_cli("inspect", s3.address)
    assert result.returncode == 2 and "SR_STORE_TIMEOUT=soon: expected a number of seconds above 0" in result.stderr


# ---- transient faults


@pytest.fixture
def s3_short_timeout(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A store whose requests time out after one second."""
    monkeypatch.setenv("SR_STORE_TIMEOUT", "1")
    return s3


@contextlib.contextmanager
def few_attempts(fault: FaultKind) -> Iterator[None]:
    """Allow three attempts per request, and one second for stalled ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srshards.storage.retry.ATTEMPTS", 3)
        if fault.startswith("stall"):
            patch.setenv("SR_STORE_TIMEOUT", "1")
        yield


def inject_faults(s3: Bucket, faults: tuple[FaultKind, ...], method: str, key: str) -> int:
    """Let each fault happen once to matching requests, and return the number of faults."""
    for fault in faults:
        s3.proxy.break_next(fault, method, key)
    return len(faults)


@pytest.mark.parametrize(
    "injections",
    [
        [(READ_FAULTS, "GET", "*/photos/*")],
        [(WRITE_FAULTS, "PUT", key) for key in ("*.tar", "*.idx", "*/[tv]*-*.json")],
        [
            (("500", "reset", "truncate", "stall_body"), "LIST", "*/photos/"),
            (("503", "reset", "stall"), "DELETE", "*"),
            (("500", "reset", "stall"), "HEAD", "*.tar"),
            (("503", "stall"), "PUT", "*/manifest.json"),
        ],
    ],
    ids=["photos", "shards", "others"],
)
def test_generate_retries_transient_faults(
    injections: list[tuple[tuple[FaultKind, ...], str, str]], s3_short_timeout: Bucket, source: str, shards: Path
) -> None:
    count = sum(inject_faults(s3_short_timeout, *injection) for injection in injections)
    generate(source, f"{s3_short_timeout.address}/shards", *ARGS)
    assert s3_short_timeout.proxy.faults.total() == count
    assert stored_files(s3_short_timeout) == contract_files(shards)
    assert s3_short_timeout.keys("shards") == all_files(shards) - {".shardgen.lock"}


def test_verify_retries_transient_faults(s3_short_timeout: Bucket, stored: str) -> None:
    keys = ("*.tar", "*.idx", "*/[tv]*-*.json")
    count = sum(inject_faults(s3_short_timeout, READ_FAULTS, "GET", key) for key in keys)
    result = run_cli("verify", stored, "--fix", "--workers", 4)
    assert result.returncode == 0, result.stderr
    assert "all intact." in result.stdout
    assert s3_short_timeout.proxy.faults.total() == count


def test_markers_are_read_again_after_transient_faults(s3_short_timeout: Bucket, source: str) -> None:
    generate(source, f"{s3_short_timeout.address}/shards", *ARGS)
    count = inject_faults(s3_short_timeout, READ_FAULTS, "GET", "*/shards/scale_*/*.json")
    assert "shards are up to date." in generate(source, f"{s3_short_timeout.address}/shards", *ARGS).stdout
    assert s3_short_timeout.proxy.faults.total() == count


# ---- permanent faults


@pytest.mark.parametrize(
    ("fault", "method", "key", "message"),
    [
        ("500", "GET", "*/img7.jpg", "cannot read s3://BUCKET/photos/class1/img7.jpg: "),
        ("stall", "GET", "*/img7.jpg", "img7.jpg: no answer for 1 s (tried 3 times in "),
        ("wrong_bytes", "GET", "*/img7.jpg", "did not match calculated checksum"),
        ("503", "PUT", "*/train-000001.tar", "cannot write s3://BUCKET/shards/scale_2x/train-000001.tar: "),
    ],
)
def test_permanent_fault_ends_the_run_and_keeps_finished_shards(
    fault: FaultKind, method: str, key: str, message: str, s3: Bucket, source: str, shards: Path, scratch: Path
) -> None:
    target = f"{s3.address}/shards"
    s3.proxy.break_next(fault, method, key, times=math.inf)
    with few_attempts(fault):
        result = generate(source, target, *ARGS, expect=1)
    assert message.replace("BUCKET", s3.name) in result.stderr
    assert "Error: shard train-00000" in result.stderr and "Finished shards are kept." in result.stderr
    assert "then run the same command again" in result.stderr and "Traceback" not in result.stderr
    assert not shard_files_on(scratch)
    assert not {name for name in s3.keys("shards") if "manifest" in name}
    finished = {name for name in s3.keys("shards") if name.endswith(".json")}
    s3.proxy.heal()
    result = generate(source, target, *ARGS)
    assert f"built, {len(finished)} kept, 0 removed." in result.stdout
    assert stored_files(s3) == contract_files(shards), "no photo is counted as failed"


def test_verify_does_not_report_an_unavailable_shard_as_broken(s3: Bucket, stored: str) -> None:
    before = s3.objects("shards")
    s3.proxy.break_next("stall", "GET", "*/train-000001.tar", times=math.inf)
    with few_attempts("stall"):
        result = run_cli("verify", stored, "--fix")
    assert result.returncode == 1
    assert f"cannot read {stored}/scale_2x/train-000001.tar: no answer for 1 s" in result.stderr
    assert "broken" not in result.stderr
    assert s3.objects("shards") == before


def test_failing_listing_is_an_error_at_the_start(s3: Bucket, source: str) -> None:
    s3.proxy.break_next("stall", "LIST", times=math.inf)
    with few_attempts("stall"):
        result = generate(source, f"{s3.address}/shards", expect=1)
    assert f"cannot list {source}: no answer for 1 s (tried 3 times in " in result.stderr
    assert s3.keys("shards") == set()


def test_missing_credentials_are_an_error(s3: Bucket, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    result = run_cli("inspect", s3.address)
    assert result.returncode == 1 and "no credentials found for s3://" in result.stderr


# ---- killed and concurrent runs


@pytest.mark.parametrize("what", ["train-*.tar", "train-*.json", "manifest.json"])
def test_run_killed_during_an_upload_resumes(what: str, s3: Bucket, source: str, shards: Path, scratch: Path) -> None:
    """The run is killed during the upload of the second object of the kind."""
    target = f"{s3.address}/shards"
    s3.proxy.break_next("stall_body", "PUT", f"*/shards/scale_*/{what}", times=math.inf, skip=1)
    arguments = ("generate", "-i", source, "-o", target, "--size", 64, "--auto", "--workers", 2, *ARGS)
    with running(*arguments) as process:
        wait_until(lambda: s3.proxy.faults["stall_body"], process)
        assert shard_files_on(scratch) or what != "train-*.tar", "a shard is on scratch until it is uploaded"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=TIMEOUT_S)
        assert not alive, "workers must not outlive their run"
    remote = s3.keys("shards")
    finished = {name for name in remote if "/train" in name or "/val" in name if name.endswith(".json")}
    assert len(remote & {name for name in all_files(shards) if Path(name).match(what)}) == 1
    if what != "manifest.json":
        assert not {name for name in remote if "manifest" in name}
    s3.proxy.heal()
    generate(source, target, *ARGS)
    assert stored_files(s3) == contract_files(shards)
    assert s3.proxy.count("PUT", "*.json") <= len(all_files(shards)) - len(finished), "finished shards are kept"
    assert not shard_files_on(scratch)


def test_second_run_on_this_machine_is_rejected(s3: Bucket, source: str) -> None:
    target = f"{s3.address}/shards"
    s3.proxy.break_next("stall", "PUT", "*.tar", times=math.inf)
    with running("generate", "-i", source, "-o", target, "--size", 64, "--auto", "--workers", 0) as process:
        wait_until(lambda: s3.proxy.faults["stall"], process)
        result = generate(source, target + "/", expect=2)
        assert f"another shardgen run is writing to {target}; wait until it has finished" in result.stderr
        process.kill()
    s3.proxy.heal()
    generate(source, target)


@pytest.mark.parametrize(
    ("method", "key", "requests", "number", "exit_code"),
    [
        ("GET", "*/photos/*", 8, signal.SIGINT, 130),
        ("PUT", "*.tar", 1, signal.SIGINT, 130),
        ("PUT", "*.tar", 1, signal.SIGTERM, 143),
    ],
)
def test_interrupt_does_not_wait_for_the_store(
    method: str, key: str, requests: int, number: int, exit_code: int, s3: Bucket, source: str, scratch: Path
) -> None:
    s3.proxy.break_next("stall", method, key, times=math.inf)
    arguments = ("generate", "-i", source, "-o", f"{s3.address}/x", "--size", 64, "--auto", "--workers", 0)
    with running(*arguments) as process:
        wait_until(lambda: s3.proxy.faults["stall"] == requests, process)
        process.send_signal(number)
        process.wait(timeout=15)  # well below the timeout of 20 s
        assert process.returncode == exit_code
        assert process.stderr and "Interrupted. Finished shards are kept" in process.stderr.read()
    assert s3.proxy.faults["stall"] == requests, "requests are not retried"
    assert not shard_files_on(scratch)


@pytest.mark.parametrize("ends_at", ["scale_2x/train-000000.idx", "scale_2x/train-000000.json"])
def test_builder_of_a_finished_run_commits_nothing(ends_at: str, s3: Bucket, photos: Path) -> None:
    """As a cluster task that was declared dead but still runs: it must not commit."""
    task = prepare(list_inputs(Config(photos, parse_address(f"{s3.address}/shards"), (2, 3), 64))).tasks[0]

    def before_commit() -> None:
        if ends_at in s3.keys("shards"):
            raise RuntimeError("the run has ended")

    with pytest.raises(RuntimeError, match="the run has ended"):
        build_shard(task, lambda progress: None, before_commit)
    last = {"scale_2x/train-000000.json"} if ends_at.endswith(".json") else set()
    assert s3.keys("shards") == {"scale_2x/train-000000.tar", "scale_2x/train-000000.idx"} | last


def test_interrupt_is_not_retried() -> None:
    calls = []

    def interrupted(*_: object) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        request(UPath("memory://x"), "read", interrupted)
    assert len(calls) == 1


def test_file_system_with_its_own_retries_needs_no_connect() -> None:
    class LikeGoogles:
        retries = 6

        def invalidate_cache(self) -> None:
            pass

        def cat_file(self, path: str) -> bytes:
            return path.encode()

    address: Any = SimpleNamespace(fs=LikeGoogles(), path="bucket/x", protocol="gs")
    assert request(address, "read", lambda fs, path, limit: fs.cat_file(path, **limit)) == b"bucket/x"


def test_too_small_scratch_space_is_an_error(
    s3: Bucket, photos: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    result = generate(photos, f"{s3.address}/shards", *ARGS, "--shard-bytes", "256MB", expect=1)
    assert re.search("1 worker would use about [0-9.]+ MB of scratch space to build shards, but ", result.stderr)
    message = f"{scratch}/shardgen-{os.getuid()} has 100.0 kB free; set TMPDIR to a folder on a larger disk"
    assert message in result.stderr
    assert s3.keys("shards") == set()


def test_scratch_folder_of_another_user_is_an_error(s3: Bucket, photos: Path, scratch: Path, tmp_path: Path) -> None:
    (scratch / f"shardgen-{os.getuid()}").symlink_to(tmp_path)
    result = generate(photos, f"{s3.address}/shards", expect=1)
    assert f"{scratch}/shardgen-{os.getuid()} belongs to another user" in result.stderr
