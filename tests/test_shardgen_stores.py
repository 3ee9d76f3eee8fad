"""Photos and shards in an object store: the same bytes as in a folder, whatever the store does meanwhile."""

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
from helpers import PATIENCE_S, all_files, contract_files, generate, make_photos, run_cli, running, wait_until
from upath import UPath

from shardgen.generate.run import prepare
from shardgen.planning.config import Config
from shardgen.shard.job import build_shard
from srshards.storage.retry import request
from srshards.storage.store import parse_address
from tests.drill.fault_proxy import READ_FAULTS, WRITE_FAULTS, FaultKind
from tests.drill.s3_server import Bucket

ARGS = ("-s", 2, 3, "--shard-bytes", "300KB")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch and locks lie, for this test alone."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is asked for once
    return folder


def stored_files(s3: Bucket, prefix: str = "shards") -> dict[str, str]:
    """As `contract_files`: sha256 of every shard, index and manifest."""
    return {
        key: hashlib.sha256(content).hexdigest()
        for key, content in s3.objects(prefix).items()
        if key.endswith((".tar", ".idx", "manifest.json"))
    }


def left_on(scratch: Path) -> set[str]:
    """Shards, or parts of them, that lie on scratch."""
    return {name for name in all_files(scratch) if not name.endswith(".lock")}


# ---- without faults


def test_a_store_gets_the_bytes_that_a_folder_gets(photos: Path, shards: Path, s3: Bucket, scratch: Path) -> None:
    source = s3.put_folder(photos, "photos")
    done = generate(source, f"{s3.address}/shards", *ARGS)
    assert f"Photos  40 of 40 in {source}" in done.stdout
    assert "Store   " in done.stdout and "free" not in done.stdout
    assert stored_files(s3) == contract_files(shards)
    assert s3.keys("shards") == all_files(shards) - {".shardgen.lock"}
    stats = json.loads(s3.objects("shards")["processing_stats.json"])
    assert stats["total_processed"] == 40 and stats["total_failed"] == 0
    assert not left_on(scratch)


def test_every_photo_is_asked_for_once_and_listed_once(photos: Path, s3: Bucket) -> None:
    source = s3.put_folder(photos, "photos")
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


def test_a_finished_run_is_recognised_by_its_listing_and_its_markers(photos: Path, s3: Bucket) -> None:
    source = s3.put_folder(photos, "photos")
    generate(source, f"{s3.address}/shards", *ARGS)
    markers = [key for key in s3.keys("shards") if key.split("/")[-1].startswith(("train", "val")) and "json" in key]
    s3.proxy.heal()
    done = generate(source, f"{s3.address}/shards", *ARGS)
    assert f"All {len(markers)} shards are up to date." in done.stdout
    assert s3.proxy.count("GET", "*/shards/*.json") == len(markers) + 2, "each marker, and each manifest to compare"
    assert s3.proxy.count("GET", "*.tar") == s3.proxy.count("GET", "*/photos/*") == 0
    assert s3.proxy.count("LIST", "*/shards/scale_*") == 2
    assert s3.proxy.count("PUT", "*") == 1, "whether it can be written to is tried"


def test_what_changes_is_made_again_and_what_goes_is_removed(photos: Path, s3: Bucket, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(photos, tmp_path / "mine"))
    source, target = s3.put_folder(mine, "photos"), f"{s3.address}/shards"
    generate(source, target, *ARGS)
    (mine / "class0" / "img0.jpg").unlink()
    s3.server.delete(s3.name, "photos/class0/img0.jpg")
    done = generate(source, target, *ARGS)
    assert "Shards: 2 built" in done.stdout or "Shards: 4 built" in done.stdout
    generate(mine, tmp_path / "local", *ARGS)
    assert stored_files(s3) == contract_files(tmp_path / "local")
    done = generate(source, target, *ARGS, "--sample", 0.3, "--force")
    generate(mine, tmp_path / "some", *ARGS, "--sample", 0.3)
    assert stored_files(s3) == contract_files(tmp_path / "some"), "what belongs to no photo is gone"


def test_photos_here_shards_there_and_the_other_way_round(
    photos: Path, shards: Path, s3: Bucket, tmp_path: Path
) -> None:
    generate(photos, f"{s3.address}/shards", *ARGS)
    assert stored_files(s3) == contract_files(shards)
    generate(s3.put_folder(photos, "photos"), tmp_path / "out", *ARGS)
    assert contract_files(tmp_path / "out") == contract_files(shards)
    done = generate(f"file://{photos}", f"file://{tmp_path}/again", *ARGS)
    assert contract_files(tmp_path / "again") == contract_files(shards)
    assert f"in {photos}" in done.stdout


def test_worker_processes_do_the_same(photos: Path, shards: Path, s3: Bucket, scratch: Path) -> None:
    source = s3.put_folder(photos, "photos")
    words = ("generate", "-i", source, "-o", f"{s3.address}/shards", "--size", 64, "--auto", "--workers", 2, *ARGS)
    done = run_cli(*words, cwd="/")
    assert done.returncode == 0, done.stderr
    assert stored_files(s3) == contract_files(shards)
    assert not left_on(scratch)


def test_bad_photos_have_the_same_names_there(s3: Bucket, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 12)
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.png").write_bytes(b"no picture")
    (photos / "notes.txt").write_bytes(b"no photo")
    source = s3.put_folder(photos, "photos")
    s3.server.put(s3.name, "photos/folder/", b"")
    there, here = generate(source, f"{s3.address}/shards"), generate(photos, tmp_path / "out")
    assert "1 other file ignored" in there.stdout and "1 other file ignored" in here.stdout
    assert stored_files(s3) == contract_files(tmp_path / "out")
    failures = json.loads(s3.objects("shards")["scale_4x/manifest.json"])["failures"]
    assert failures == [
        {"path": "empty.jpg", "reason": "empty file"},
        {"path": "text.png", "reason": "not an image, or its header is damaged"},
    ]


def test_a_name_that_no_folder_could_have_is_a_named_failure(s3: Bucket, photos: Path) -> None:
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


def test_a_photo_that_goes_meanwhile_is_a_named_failure(s3: Bucket, photos: Path, tmp_path: Path) -> None:
    source = s3.put_folder(photos, "photos")
    s3.proxy.break_next("gone", "GET", "*/photos/class0/img0.jpg")
    generate(source, f"{s3.address}/shards")
    failures = json.loads(s3.objects("shards")["scale_4x/manifest.json"])["failures"]
    assert failures == [{"path": "class0/img0.jpg", "reason": "cannot be read: No such file or directory"}]


# ---- looking at what lies there


@pytest.fixture
def stored(shards: Path, s3: Bucket) -> str:
    """The address of a copy of `shards`."""
    return s3.put_folder(shards, "shards")


def test_the_other_commands_read_there_what_they_read_here(stored: str, shards: Path, tmp_path: Path) -> None:
    def same(*words: object) -> None:
        here = run_cli(*(str(word).replace("SHARDS", str(shards)) for word in words))
        there = run_cli(*(str(word).replace("SHARDS", stored) for word in words))
        assert here.returncode == there.returncode == 0, here.stderr + there.stderr
        assert there.stdout.replace(stored, "SHARDS") == here.stdout.replace(str(shards), "SHARDS")

    same("inspect", "SHARDS", "--json")
    same("inspect", "SHARDS", "--shard", "train-000000", "--json")
    same("inspect", "SHARDS", "--sample", "000000000001", "--json")
    same("verify", "SHARDS")
    same("rebuild", "000000000001", "SHARDS")
    same("preview", "SHARDS/scale_2x", "-o", tmp_path / "preview.png")
    same("unpack", "SHARDS", "-o", tmp_path / "loose")
    here, there = tmp_path / "here", tmp_path / "there"
    for source, place in ((shards, here), (stored, there)):
        assert run_cli("preview", f"{source}/scale_3x", "-o", place / "preview.png").returncode == 0
        assert run_cli("unpack", f"{source}/scale_3x", "-o", place / "loose").returncode == 0
    assert all_files(here) == all_files(there) and len(all_files(here)) == 1 + 1 + 3 * 40, (
        "a preview, and whose files they are"
    )
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in all_files(here))


def test_verify_names_what_is_broken_there_and_mends_it(stored: str, s3: Bucket, photos: Path, shards: Path) -> None:
    tar = s3.server.get(s3.name, "shards/scale_2x/train-000001.tar")
    s3.server.put(s3.name, "shards/scale_2x/train-000001.tar", tar[:1000] + b"X" + tar[1001:])
    s3.server.delete(s3.name, "shards/scale_2x/train-000000.idx")
    s3.server.put(s3.name, "shards/scale_3x/train-000000.tar", tar[:-1])
    s3.server.delete(s3.name, "shards/scale_3x/train-000001.tar")
    done = run_cli("verify", stored)
    assert done.returncode == 1
    for reason in (
        "scale_2x/train-000001.tar: its SHA-256 differs from its done marker",
        "scale_2x/train-000000.tar: [Errno 2] No such file or directory: ",
        "scale_3x/train-000000.tar: ",
        "scale_3x/train-000001.tar: no such file",
    ):
        assert f"{stored}/{reason}" in done.stderr
    assert "4 of 12 shards and manifests are broken. Pass --fix to remove broken shards." in done.stderr
    before = s3.keys("shards")
    assert run_cli("verify", stored, "--fix").returncode == 1
    gone = before - s3.keys("shards")
    assert {name for name in gone if "manifest" in name} == {"scale_2x/manifest.json", "scale_3x/manifest.json"}
    assert {name.split(".")[0] for name in gone} == {
        *(f"scale_{scale}x/{name}" for scale in (2, 3) for name in ("manifest", "train-000000", "train-000001"))
    }
    source = s3.put_folder(photos, "photos")
    generate(source, stored, *ARGS)
    assert stored_files(s3) == contract_files(shards)
    assert run_cli("verify", stored).returncode == 0


# ---- commands that are wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "-i", "s3://BUCKET/nothing", "--auto"), "no such folder: s3://BUCKET/nothing. Pass the folder"),
        (("generate", "-i", "s3://no-such-bucket/x", "--auto"), "no such folder: s3://no-such-bucket/x"),
        (("generate", "-i", "s3://BUCKET/only/notes.txt", "--auto"), "is a file. --input expects a folder of photos"),
        (("generate", "-i", "s3://BUCKET/only", "--auto"), "no photos in s3://BUCKET/only (other files: 1)"),
        (("generate", "-i", "s3://", "--auto"), "s3://: expected an address with a bucket, e.g. s3://bucket/folder"),
        (("verify", "s3:///shards"), "s3:///shards: expected an address with a bucket, e.g. s3://bucket/folder"),
        (("generate", "-i", "nope://x", "--auto"), "unknown store nope://; expected a folder, or e.g. s3://"),
        (("generate", "-i", "gs://x/y", "--auto"), "gs:// needs gcsfs, which is not installed. Run: pip install gcsfs"),
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
        (("preview", "s3://BUCKET/only/notes.txt"), "is a file: to see a photo degraded by a recipe"),
        (
            ("preview", "s3://BUCKET/a.jpg", "--recipe", "realesrgan"),
            "is in an object store: --recipe needs a local photo",
        ),
    ],
)
def test_a_wrong_command_is_named(words: tuple[str, ...], message: str, s3: Bucket) -> None:
    s3.server.put(s3.name, "only/notes.txt", b"notes")
    done = run_cli(*(word.replace("BUCKET", s3.name) for word in words))
    assert done.returncode == 2, done.stderr
    assert message.replace("BUCKET", s3.name) in done.stderr and "Traceback" not in done.stderr


def test_an_output_whose_bucket_is_missing_is_named_at_once(photos: Path, s3: Bucket) -> None:
    done = run_cli("generate", "-i", photos, "-o", "s3://no-such-bucket/shards", "--auto")
    assert done.returncode == 1
    assert "cannot write s3://no-such-bucket/shards/.shardgen.probe: " in done.stderr
    assert "Create the bucket first, or pass another." in done.stderr


def test_a_patience_that_is_no_number_is_named(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_STORE_TIMEOUT", "soon")
    done = run_cli("inspect", s3.address)
    assert done.returncode == 2 and "SR_STORE_TIMEOUT=soon: expected a number of seconds above 0" in done.stderr


# ---- a store that stumbles


@pytest.fixture
def impatient(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A store that is asked again after a second of silence."""
    monkeypatch.setenv("SR_STORE_TIMEOUT", "1")
    return s3


@contextlib.contextmanager
def giving_up_soon(fault: FaultKind) -> Iterator[None]:
    """Three attempts are enough for a store that never does what it should, and a second for a silent one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srshards.storage.retry.ATTEMPTS", 3)
        if fault.startswith("stall"):
            patch.setenv("SR_STORE_TIMEOUT", "1")
        yield


def stumble(s3: Bucket, faults: tuple[FaultKind, ...], method: str, key: str) -> int:
    """Each of the faults happens once, to one of the first requests of the kind. Returns how many there are."""
    for fault in faults:
        s3.proxy.break_next(fault, method, key)
    return len(faults)


@pytest.mark.parametrize(
    "stumbles",
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
    ids=["photos", "shards", "the rest"],
)
def test_each_stumble_of_a_run_costs_time_and_nothing_else(
    stumbles: list[tuple[tuple[FaultKind, ...], str, str]], impatient: Bucket, photos: Path, shards: Path
) -> None:
    source = impatient.put_folder(photos, "photos")
    count = sum(stumble(impatient, *them) for them in stumbles)
    generate(source, f"{impatient.address}/shards", *ARGS)
    assert impatient.proxy.faults.total() == count
    assert stored_files(impatient) == contract_files(shards)
    assert impatient.keys("shards") == all_files(shards) - {".shardgen.lock"}


def test_each_stumble_of_verify_costs_time_and_nothing_else(impatient: Bucket, stored: str) -> None:
    count = sum(stumble(impatient, READ_FAULTS, "GET", key) for key in ("*.tar", "*.idx", "*/[tv]*-*.json"))
    done = run_cli("verify", stored, "--fix", "--workers", 4)
    assert done.returncode == 0, done.stderr
    assert "all intact." in done.stdout
    assert impatient.proxy.faults.total() == count


def test_markers_are_read_again_when_the_store_stumbles(impatient: Bucket, photos: Path) -> None:
    source = impatient.put_folder(photos, "photos")
    generate(source, f"{impatient.address}/shards", *ARGS)
    count = stumble(impatient, READ_FAULTS, "GET", "*/shards/scale_*/*.json")
    assert "shards are up to date." in generate(source, f"{impatient.address}/shards", *ARGS).stdout
    assert impatient.proxy.faults.total() == count


# ---- a store that fails


@pytest.mark.parametrize(
    ("fault", "method", "key", "said"),
    [
        ("500", "GET", "*/img7.jpg", "cannot read s3://BUCKET/photos/class1/img7.jpg: "),
        ("stall", "GET", "*/img7.jpg", "img7.jpg: no answer for 1 s; tried 3 times in "),
        ("wrong_bytes", "GET", "*/img7.jpg", "did not match calculated checksum"),
        ("503", "PUT", "*/train-000001.tar", "cannot write s3://BUCKET/shards/scale_2x/train-000001.tar: "),
    ],
)
def test_a_store_that_fails_ends_the_run_and_costs_no_shard(
    fault: FaultKind,
    method: str,
    key: str,
    said: str,
    s3: Bucket,
    photos: Path,
    shards: Path,
    scratch: Path,
) -> None:
    source, target = s3.put_folder(photos, "photos"), f"{s3.address}/shards"
    s3.proxy.break_next(fault, method, key, times=math.inf)
    with giving_up_soon(fault):
        done = generate(source, target, *ARGS, expect=1)
    assert said.replace("BUCKET", s3.name) in done.stderr
    assert "Error: shard train-00000" in done.stderr and "Finished shards are kept." in done.stderr
    assert "then run the same command again." in done.stderr and "Traceback" not in done.stderr
    assert not left_on(scratch)
    assert not {name for name in s3.keys("shards") if "manifest" in name}
    finished = {name for name in s3.keys("shards") if name.endswith(".json")}
    s3.proxy.heal()
    done = generate(source, target, *ARGS)
    assert f"built, {len(finished)} kept, 0 removed." in done.stdout
    assert stored_files(s3) == contract_files(shards), "no photo counts as failed"


def test_a_store_that_fails_is_no_broken_shard(s3: Bucket, stored: str) -> None:
    before = s3.objects("shards")
    s3.proxy.break_next("stall", "GET", "*/train-000001.tar", times=math.inf)
    with giving_up_soon("stall"):
        done = run_cli("verify", stored, "--fix")
    assert done.returncode == 1
    assert f"cannot read {stored}/scale_2x/train-000001.tar: no answer for 1 s" in done.stderr
    assert "broken" not in done.stderr
    assert s3.objects("shards") == before


def test_a_store_that_lists_nothing_is_an_error_before_anything_is_made(s3: Bucket, photos: Path) -> None:
    source = s3.put_folder(photos, "photos")
    s3.proxy.break_next("stall", "LIST", times=math.inf)
    with giving_up_soon("stall"):
        done = generate(source, f"{s3.address}/shards", expect=1)
    assert f"cannot list {source}: no answer for 1 s; tried 3 times in " in done.stderr
    assert s3.keys("shards") == set()


def test_credentials_that_are_missing_are_named(s3: Bucket, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    done = run_cli("inspect", s3.address)
    assert done.returncode == 1 and "no credentials found for s3://" in done.stderr


# ---- runs that are killed, and several at once


@pytest.mark.parametrize("what", ["train-*.tar", "train-*.json", "manifest.json"])
def test_a_run_that_is_killed_while_it_sends_goes_on(
    what: str, s3: Bucket, photos: Path, shards: Path, scratch: Path
) -> None:
    """The second object of the kind never arrives: there the run is killed."""
    source, target = s3.put_folder(photos, "photos"), f"{s3.address}/shards"
    s3.proxy.break_next("stall_body", "PUT", f"*/shards/scale_*/{what}", times=math.inf, skip=1)
    words = ("generate", "-i", source, "-o", target, "--size", 64, "--auto", "--workers", 2, *ARGS)
    with running(*words) as process:
        wait_until(lambda: s3.proxy.faults["stall_body"], process)
        assert left_on(scratch) or what != "train-*.tar", "a shard lies there until all of it is sent"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert not alive, "workers must not outlive their run"
    there = s3.keys("shards")
    finished = {name for name in there if "/train" in name or "/val" in name if name.endswith(".json")}
    assert len(there & {name for name in all_files(shards) if Path(name).match(what)}) == 1
    if what != "manifest.json":
        assert not {name for name in there if "manifest" in name}
    s3.proxy.heal()
    generate(source, target, *ARGS)
    assert stored_files(s3) == contract_files(shards)
    assert s3.proxy.count("PUT", "*.json") <= len(all_files(shards)) - len(finished), "those were kept"
    assert not left_on(scratch)


def test_a_second_run_of_this_machine_is_refused(s3: Bucket, photos: Path) -> None:
    source, target = s3.put_folder(photos, "photos"), f"{s3.address}/shards"
    s3.proxy.break_next("stall", "PUT", "*.tar", times=math.inf)
    with running("generate", "-i", source, "-o", target, "--size", 64, "--auto", "--workers", 0) as process:
        wait_until(lambda: s3.proxy.faults["stall"], process)
        done = generate(source, target + "/", expect=2)
        assert f"another shardgen run is writing to {target}. Wait until it has ended" in done.stderr
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
def test_an_interrupt_does_not_wait_for_the_store(
    method: str, key: str, requests: int, number: int, exit_code: int, s3: Bucket, photos: Path, scratch: Path
) -> None:
    source = s3.put_folder(photos, "photos")
    s3.proxy.break_next("stall", method, key, times=math.inf)
    words = ("generate", "-i", source, "-o", f"{s3.address}/x", "--size", 64, "--auto", "--workers", 0)
    with running(*words) as process:
        wait_until(lambda: s3.proxy.faults["stall"] == requests, process)
        process.send_signal(number)
        process.wait(timeout=15)  # well below the silence of 20 s that is allowed here
        assert process.returncode == exit_code
        assert process.stderr and "Interrupted. Finished shards are kept" in process.stderr.read()
    assert s3.proxy.faults["stall"] == requests, "nothing is asked for again"
    assert not left_on(scratch)


@pytest.mark.parametrize("ends_at", ["scale_2x/train-000000.idx", "scale_2x/train-000000.json"])
def test_a_maker_whose_run_has_ended_finishes_nothing(ends_at: str, s3: Bucket, photos: Path) -> None:
    """As a task of a cluster that is taken for dead: it goes on making, and is stopped before it commits."""
    task = prepare(Config(photos, parse_address(f"{s3.address}/shards"), (2, 3), 64)).tasks[0]

    def before_commit() -> None:
        if ends_at in s3.keys("shards"):
            raise RuntimeError("the run has ended")

    with pytest.raises(RuntimeError, match="the run has ended"):
        build_shard(task, lambda progress: None, before_commit)
    last = {"scale_2x/train-000000.json"} if ends_at.endswith(".json") else set()
    assert s3.keys("shards") == {"scale_2x/train-000000.tar", "scale_2x/train-000000.idx"} | last


def test_an_interrupt_is_no_failed_request() -> None:
    calls = []

    def interrupted(*_: object) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        request(UPath("memory://x"), "read", interrupted)
    assert len(calls) == 1


def test_a_file_system_that_tries_again_itself_needs_no_connect() -> None:
    class LikeGoogles:
        retries = 6

        def invalidate_cache(self) -> None:
            pass

        def cat_file(self, path: str) -> bytes:
            return path.encode()

    address: Any = SimpleNamespace(fs=LikeGoogles(), path="bucket/x", protocol="gs")
    assert request(address, "read", lambda fs, path, limit: fs.cat_file(path, **limit)) == b"bucket/x"


def test_scratch_that_is_too_small_is_refused(
    s3: Bucket, photos: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    done = generate(photos, f"{s3.address}/shards", *ARGS, "--shard-bytes", "256MB", expect=1)
    assert re.search("1 workers need about [0-9.]+ MB of scratch space to build shards, but ", done.stderr)
    assert f"{scratch}/shardgen-{os.getuid()} has 100.0 kB free. Set TMPDIR to a folder on a larger disk" in done.stderr
    assert s3.keys("shards") == set()


def test_scratch_of_somebody_else_is_refused(s3: Bucket, photos: Path, scratch: Path, tmp_path: Path) -> None:
    (scratch / f"shardgen-{os.getuid()}").symlink_to(tmp_path)
    done = generate(photos, f"{s3.address}/shards", expect=1)
    assert f"{scratch}/shardgen-{os.getuid()} belongs to another user" in done.stderr
