"""Shards in a store: the same training as from a folder, each byte fetched once, and every fault of the store."""

import dataclasses
import gc
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import PATIENCE_S, all_files, generate, overwrite, trainer, until
from hypothesis import given, settings
from hypothesis import strategies as st

from srshards.errors import RunError, UsageError
from srshards.format import ShardRecord
from srshards.loader import sources as sources_room
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.prefetch import PrefetchedBatches, PrefetchWindow, ShardFetcher
from srshards.process import fork_server
from srshards.sampling import schedule as schedule_room
from srshards.sampling.schedule import Schedule
from srshards.shards import cache_contents as contents_room
from srshards.shards import cache_folder as folder_room
from srshards.shards.cache_contents import Decoder
from srshards.shards.cache_folder import CacheFolder, NoRoomError
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.shards.mapped import DamagedMember, MappedShard, Origin
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from srshards.storage.store import parse_address
from tests.drill.s3_server import Bucket, S3Server, environment, forget_stores, fresh_bucket
from tests.drill.warm import Warm, run_warm
from trainer.distributed.rank import RankInfo
from trainer.evaluation.evaluate import shard_pairs
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig

SILENCE_S = 5.0  # after which a store that says nothing is asked again
TRAINING = (
    *("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--steps", 12, "--device", "cpu"),
    *("--amp", "off", "--run", "it"),
)


class Store(NamedTuple):
    """A bucket with shards of the same 40 photos in several, where they lie on this machine too."""

    bucket: Bucket
    local: Path

    def address(self, name: str) -> str:
        return f"{self.bucket.address}/{name}"

    def requests(self, pattern: str = "*.tar") -> int:
        return self.bucket.proxy.count("GET", pattern)


def end_fork_server() -> None:
    """Processes that come from it have the environment that it was started in."""
    server = fork_server._server
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


@pytest.fixture(scope="module")
def _store(photos: Path, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    local = tmp_path_factory.mktemp("local")
    generate(photos, local / "npy", "-s", 2, "--shard-bytes", "300KB")
    for codec in ("npy", "webp"):
        generate(photos, local / f"one-{codec}", "-s", 2, "--shard-bytes", "300MB", "--codec", codec)
    with fresh_bucket(s3_server) as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(bucket.proxy.endpoint, SILENCE_S).items():
            patch.setenv(name, value)
        forget_stores()
        end_fork_server()
        for folder in local.iterdir():
            bucket.put_folder(folder / "scale_2x", folder.name)
        yield Store(bucket, local)
        end_fork_server()
    forget_stores()


@pytest.fixture
def store(_store: Store) -> Store:
    _store.bucket.proxy.heal()
    return _store


def trained(out: Path, *args: object, expect: int = 0) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of a short training in this process, and what it said."""
    ended = trainer(*TRAINING, "--workers", 0, "--out", out, *args)
    assert ended.code == expect, ended.err
    return (weights(out) if expect == 0 else {}), ended.err


def weights(out: Path) -> dict[str, torch.Tensor]:
    params: dict[str, torch.Tensor] = torch.load(out / "it" / "model.pth")["params"]
    return params


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def from_folder(_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the same training from the folder."""
    return trained(tmp_path_factory.mktemp("runs"), "--shards", _store.local / "npy" / "scale_2x")[0]


def half_written(cache: Path) -> set[str]:
    return {name for name in all_files(cache) if name.endswith((".part", ".raw"))}


def shards_of(store: Store, cache: Path, name: str = "npy", decode: bool = False, limit: int = 10**9) -> CachedShards:
    cached = open_shards(store.address(name), cache=cache, cache_bytes=limit, decode=decode).cached
    assert cached is not None
    return cached


def records_of(store: Store, name: str = "npy") -> tuple[ShardRecord, ...]:
    return open_shards(store.local / name / "scale_2x").manifest.shards


# ---- the same training


def test_training_from_a_store_is_the_same_and_fetches_each_shard_once(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """With two workers and the fetcher, all of which want all shards; and nothing at all the second time."""
    cache = tmp_path / "cache"
    args = ("--shards", store.address("npy"), "--cache", cache, "--workers", 2)
    done = run_warm("trainer", *TRAINING, *args, "--out", tmp_path)
    assert done.code == 0, done.err
    assert same(weights(tmp_path), from_folder)
    assert f"Cache    {cache}: 0 of 5 shards cached" in done.err
    keys = [f"{store.bucket.name}/npy/{record.name}.tar" for record in records_of(store)]
    assert [store.requests(key) for key in keys] == [1] * 5
    assert store.requests("*.idx") == 0
    again, said = trained(tmp_path / "again", *args[:-2])
    assert same(again, from_folder)
    assert store.requests() == 5 and "5 of 5 shards cached" in said
    assert not half_written(cache)


def test_a_resident_training_and_one_from_a_cached_folder_are_the_same(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    cache = ("--cache", tmp_path / "cache")
    resident, _ = trained(tmp_path / "resident", "--shards", store.address("npy"), *cache, "--resident")
    assert same(resident, from_folder)
    folder, said = trained(tmp_path / "folder", "--shards", store.local / "npy" / "scale_2x", *cache)
    assert same(folder, from_folder)
    assert "5 of 5 shards cached" in said  # files are named after their content


def test_a_run_goes_on_from_a_store_but_not_decoded(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    local, address, cache = store.local / "npy" / "scale_2x", store.address("npy"), ("--cache", tmp_path / "cache")
    trained(tmp_path, "--shards", local, "--val-every", 12)
    state = torch.load(tmp_path / "it" / "state.pt", weights_only=True)
    state["progress"]["validated"] = False  # a finished run would be left as it is
    torch.save(state, tmp_path / "it" / "state.pt")
    again = ("--out", tmp_path, "--run", "it", "--resume", "--workers", 0)
    ended = trainer(*again, "--shards", address, *cache, "--cache-bytes", "2GB")
    assert ended.code == 0, ended.err
    assert same(weights(tmp_path), from_folder)
    settings = (tmp_path / "it" / "config.yaml").read_text()
    assert f"shards: {address}" in settings and "cache-bytes: 2000000000" in settings
    ended = trainer(*again)  # with the address from the file
    assert ended.code == 0, ended.err
    ended = trainer(*again, "--cache-decoded")
    assert ended.code == 2 and "was started with --cache-decoded False, not True" in ended.err


def test_evaluate_reads_from_the_store(store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"params": from_folder}, tmp_path / "w.pth")
    common = ("evaluate", "--weights", tmp_path / "w.pth", "--json", "--split", "train", "--shards")
    found = trainer(*common, store.address("npy"), "--cache", tmp_path / "cache")
    assert found.code == 0, found.err
    expected = json.loads(trainer(*common, store.local / "npy" / "scale_2x").out)
    assert json.loads(found.out)["images"] == expected["images"]
    assert store.requests() == 4


# ---- faults of the store


@pytest.mark.parametrize("fault", ["500", "reset", "reset_body", "truncate", "stall", "stall_body", "wrong_bytes"])
def test_a_fault_of_the_store_changes_nothing(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path, fault: Any
) -> None:
    store.bucket.proxy.break_next(fault, "GET", "*/train-000001.tar")
    found, _ = trained(tmp_path, "--shards", store.address("npy"), "--cache", tmp_path / "cache")
    assert store.bucket.proxy.faults[fault] == 1
    assert same(found, from_folder)
    assert not half_written(tmp_path / "cache")


@pytest.mark.parametrize("fault", ["500", "wrong_bytes"])  # the latter's checksum is wrong too
def test_a_fault_that_stays_is_named(store: Store, tmp_path: Path, fault: Any) -> None:
    store.bucket.proxy.break_next(fault, "GET", "*/train-000001.tar", times=inf)
    _, said = trained(tmp_path, "--shards", store.address("npy"), "--cache", tmp_path / "cache", expect=1)
    assert f"Error: cannot read {store.address('npy')}/train-000001.tar: " in said and "asked 6 times in " in said
    assert "Traceback" not in said
    assert not half_written(tmp_path / "cache")
    broken = next(record.sha256 for record in records_of(store) if record.name == "train-000001")
    assert not any(name.startswith(broken) for name in all_files(tmp_path / "cache"))


def test_wrong_bytes_of_the_right_length_are_fetched_again_and_named_when_they_stay(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = records_of(store)[0]
    shards = shards_of(store, tmp_path)
    pieces, asked = contents_room.pieces, []

    def wrong_at_first(address: Any, size: int) -> Iterator[bytes]:
        asked.append(address)
        for piece in pieces(address, size):
            yield piece if len(asked) > wrong else bytes(len(piece))

    monkeypatch.setattr(contents_room, "pieces", wrong_at_first)
    wrong = 3
    with pytest.raises(RunError, match=f"{record.name}.tar: SHA-256 differs from manifest.json, at each of 3 attempts"):
        shards.fetch(record)
    assert all_files(tmp_path) == {".lock"}
    asked.clear()
    wrong = 2
    shards.fetch(record)
    assert len(asked) == 3
    assert shards.tar(record).read_bytes() == (store.local / "npy/scale_2x" / f"{record.name}.tar").read_bytes()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("npy/nothing", "npy/nothing: this folder has no manifest.json; to generate shards, run"),
        ("", "expected the folder of one scale; pass --shards s3://"),
    ],
)
def test_a_wrong_address_is_named(store: Store, tmp_path: Path, key: str, message: str) -> None:
    _, said = trained(tmp_path, "--shards", f"{store.bucket.address}/{key}", expect=2)
    assert message in said


def test_a_store_without_its_manifest_to_give_is_a_failure(store: Store, tmp_path: Path) -> None:
    store.bucket.proxy.break_next("500", "*", "*/manifest.json", times=inf)
    _, said = trained(tmp_path, "--shards", store.address("npy"), expect=1)
    assert f"Error: cannot read {store.address('npy')}/manifest.json: " in said


def test_a_shard_that_is_not_in_the_store_or_has_another_size_is_named(store: Store, tmp_path: Path) -> None:
    server, bucket = store.bucket.server, store.bucket.name
    for path in (store.local / "npy" / "scale_2x").iterdir():
        server.put(bucket, f"copy/{path.name}", path.read_bytes())
    server.put(bucket, "copy/train-000002.tar", b"short")
    _, said = trained(tmp_path, "--shards", store.address("copy"), "--cache", tmp_path / "c", expect=2)
    assert "copy/train-000002.tar: expected " in said and "found 5; run `python -m shardgen verify" in said
    server.delete(bucket, "copy/train-000002.tar")
    _, said = trained(tmp_path, "--shards", store.address("copy"), "--cache", tmp_path / "c", expect=2)
    assert "copy/train-000002.tar is listed in the manifest but missing" in said


def test_a_manifest_cannot_name_files_outside_of_the_cache(store: Store, tmp_path: Path) -> None:
    folder = store.local / "npy" / "scale_2x"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["shards"][0]["sha256"] = "../../outside"
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    _, said = trained(tmp_path, "--shards", copy, "--cache", tmp_path / "cache", expect=2)
    assert "'../../outside' of train-000000 is not a SHA-256" in said


# ---- several processes


def test_two_runs_share_a_cache(store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path) -> None:
    args = ("--shards", store.address("npy"), "--cache", tmp_path / "cache", "--workers", 1)
    outs = [tmp_path / "one", tmp_path / "two"]
    runs = [Warm("trainer", *TRAINING, *args, "--out", out) for out in outs]
    for run in runs:
        done = run.wait(PATIENCE_S)
        assert done.code == 0, done.err
    assert all(same(weights(out), from_folder) for out in outs)
    assert store.requests() == 5


def test_another_run_goes_on_when_the_one_that_downloads_is_killed(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed one has half a shard, and would have waited for the rest for ever."""
    store.bucket.proxy.break_next("stall_body", "GET", "*/train-000001.tar")
    cache = tmp_path / "cache"
    args = (*TRAINING, "--workers", 0, "--shards", store.address("npy"), "--cache", cache)
    with monkeypatch.context() as patch:
        patch.setenv("SR_STORE_TIMEOUT", "1000")
        killed = Warm("trainer", *args, "--out", tmp_path / "killed")
    until(lambda: store.bucket.proxy.faults["stall_body"])
    other = Warm("trainer", *args, "--out", tmp_path / "other")
    until((tmp_path / "other" / "it" / "config.yaml").exists)  # from now on it waits for that shard
    assert half_written(cache)
    killed.kill()
    done = other.wait(PATIENCE_S)
    assert done.code == 0, done.err
    assert same(weights(tmp_path / "other"), from_folder)
    assert store.requests("*/train-000001.tar") == 2 and store.requests() == 6
    assert not half_written(cache)


# ---- room


def test_a_cache_that_is_too_small_is_refused_and_one_that_is_just_large_enough_serves(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks of one shard, and the cache that the message asks for, shards come and go."""
    monkeypatch.setattr(schedule_room, "BLOCK_BYTES", 1)
    local, _ = trained(tmp_path / "local", "--shards", store.local / "npy" / "scale_2x", "--steps", 40)
    train = [record.bytes for record in records_of(store) if record.split == "train"]
    val = sum(record.bytes for record in records_of(store)) - sum(train)
    needed = 2 * max(train) + sum(train) * 4 // 39 + val  # a batch is read ahead, 4 of 39 samples
    needed += needed // 100  # for the indices
    args = ("--shards", store.address("npy"), "--cache", tmp_path / "cache", "--steps", 40, "--prefetch", 1)
    _, said = trained(tmp_path / "refused", *args, "--cache-bytes", needed - 1, expect=2)
    size = f"{needed / 1e6:.1f} MB"
    assert f"may have {size}, but the shards that have to be there at once take {size}: --cache-bytes 2MB" in said
    found, _ = trained(tmp_path / "found", *args, "--cache-bytes", needed)
    assert same(found, local)
    assert len(list((tmp_path / "cache").glob("*.tar"))) < 5
    assert CacheFolder(tmp_path / "cache").held_bytes() <= needed


def test_what_was_used_longest_ago_goes_but_nothing_that_is_mapped(store: Store, tmp_path: Path) -> None:
    records = records_of(store)[:4]
    shards = shards_of(store, tmp_path, limit=sum(record.bytes for record in records) - 1)  # any three of them
    for number, record in enumerate(records[:3]):
        shards.fetch(record)
        os.utime(shards.tar(record), (number, number))
    mapped = shards.open(shards.tar(records[0]), records[0].samples)  # it is now the one that was used last
    shards.fetch(records[3])
    assert [shards.tar(record).exists() for record in records] == [True, False, True, True]

    os.utime(shards.tar(records[0]), (0, 0))
    pixels = mapped.image(0, "hr", "npy", 64)
    expected = pixels.tobytes()
    del mapped  # what is looked at keeps the map, and so the file
    shards.fetch(records[1])
    assert [shards.tar(record).exists() for record in records] == [True, True, False, True]
    with pytest.raises(NoRoomError, match=r"has no room for .*, and the shards in it are in use"):
        shards.fetch(records[2], keep={shards.name(records[1]), shards.name(records[3])})
    assert pixels.tobytes() == expected
    del pixels
    gc.collect()
    shards.fetch(records[2], keep={shards.name(records[1]), shards.name(records[3])})
    assert [shards.tar(record).exists() for record in records] == [False, True, True, True]


def test_a_cache_of_little_more_than_a_shard_serves_for_judging(store: Store, tmp_path: Path) -> None:
    """Also when the images that were judged are kept."""
    limit = max(record.bytes for record in records_of(store)) + 10_000
    folder = open_shards(store.address("npy"), cache=tmp_path, cache_bytes=limit)
    assert len(list(shard_pairs(folder, "train", False))) == len(folder.train)
    assert store.requests() == len(folder.train.records)


def test_each_rank_of_a_machine_may_judge_on_a_shard_of_its_own(store: Store, tmp_path: Path) -> None:
    def refused(ranks: int) -> str:
        folder = open_shards(store.local / "npy" / "scale_2x", cache=tmp_path, cache_bytes=1)
        several = tuple(
            dataclasses.replace(record, name=record.name.replace("train", "val"), split="val")
            for record in folder.train.records
        )
        manifest = dataclasses.replace(folder.manifest, shards=(*folder.train.records, *several))
        folder = Shards(folder.path, manifest, folder.cached)
        with pytest.raises(UsageError, match="have to be there at once take") as error:
            checked_plan(
                TrainConfig(folder.path, model="ultra_lite", patch_size=24, batch_size=4, workers=0, device="cpu"),
                folder,
                RankInfo(0, ranks, 0, ranks),
            )
        return str(error.value)

    sizes = sorted(record.bytes for record in records_of(store) if record.split == "train")
    for ranks in (1, 2):
        needed = sum(sizes) + sum(sizes[-ranks:])
        assert f"take {(needed + needed // 100) / 1e6:.1f} MB" in refused(ranks)


def test_a_step_of_several_batches_is_one_step_for_the_fetcher(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a run of four processes goes on in one."""
    folder = open_shards(store.local / "npy" / "scale_2x", cache=tmp_path, cache_bytes=10**9)
    config = TrainConfig(folder.path, patch_size=24, batch_size=4, ranks=4, steps=5, workers=0, device="cpu")
    given: list[Any] = []
    monkeypatch.setattr(sources_room, "PrefetchedBatches", lambda *args: given.append(args))
    checked_plan(config, folder).loader._sources.source(0, 5)
    assert given[0][-1] == 4


def test_files_of_others_in_the_folder_are_neither_removed_nor_counted(store: Store, tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("photos.tar", "film.part", "film.raw", "abc.npy.tar")]
    for path in others:
        path.write_bytes(bytes(100_000))
    one, other = records_of(store)[:2]
    shards = shards_of(store, tmp_path, limit=max(one.bytes, other.bytes) + 10_000)
    assert shards.cache.held_bytes() == 0
    for record in (one, other):  # the second only finds room where the first was
        shards.fetch(record)
    shards.cache.sweep()
    assert not shards.tar(one).exists() and all(path.stat().st_size == 100_000 for path in others)


def test_a_full_disk_makes_room_or_is_an_error(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, *_, one = sorted(records_of(store), key=lambda record: record.bytes)
    shards = shards_of(store, tmp_path)
    shards.fetch(one)
    usage = folder_room.shutil.disk_usage(tmp_path)._replace(free=other.bytes // 2)
    monkeypatch.setattr(folder_room.shutil, "disk_usage", lambda path: usage)
    shards.fetch(other, keep=frozenset())
    assert not shards.tar(one).exists() and shards.tar(other).exists()
    monkeypatch.undo()

    def full(file: object, content: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(contents_room, "_write", full)
    with pytest.raises(RunError, match="No space left on device; free some disk space, pass another `cache`"):
        shards.fetch(one)
    assert not half_written(tmp_path)


def test_a_cache_that_cannot_be_written_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _, said = trained(tmp_path, "--shards", store.address("npy"), "--cache", tmp_path / "file" / "cache", expect=2)
    assert f"--cache {tmp_path}/file/cache: cannot write there (Not a directory); pass another folder" in said
    _, said = trained(tmp_path, "--shards", store.address("npy"), "--cache", "s3://bucket/cache", expect=2)
    assert "s3://bucket/cache is in an object store; expected a local path" in " ".join(said.split())


def test_a_cache_can_be_swept_while_the_interpreter_shuts_down(tmp_path: Path) -> None:
    """As by a loader that is still referenced at exit."""
    program = """
import sys
from pathlib import Path
from srshards.shards.cache_folder import CacheFolder

class Late:
    cache = CacheFolder(Path(sys.argv[1]))
    def __del__(self):
        self.cache.sweep()

sys.modules["late"] = late = Late()
late.itself = late  # kept until the modules are cleared
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    """In a process of its own, because root may write anywhere."""
    script = (
        "import os, sys; from pathlib import Path; from srshards.shards.cache_folder import CacheFolder\n"
        "from srshards.errors import UsageError\n"
        "os.getuid() or os.setuid(65534)\n"
        "try: CacheFolder(Path(sys.argv[1]))\n"
        "except UsageError as error: print(error)\n"
    )
    tmp_path.chmod(0o555)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "c")], capture_output=True, text=True)
    assert "cannot write there (Permission denied)" in done.stdout, done.stderr


def test_a_patience_that_is_no_number_is_refused_at_the_start(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_STORE_TIMEOUT", "abc")
    local = ("--shards", store.local / "npy" / "scale_2x", "--cache", tmp_path / "cache")
    _, said = trained(tmp_path, *local, "--workers", 1, expect=2)
    assert said == "Error: SR_STORE_TIMEOUT=abc: expected a number of seconds above 0, e.g. 30\n"


def test_numbers_of_bytes(tmp_path: Path) -> None:
    ended = trainer("--shards", "x", "--cache-bytes", "much")
    assert ended.code == 2 and "'much': expected a number of bytes such as 256MB, 1GiB or 1000000" in ended.err
    ended = trainer("--shards", "x", "--cache-bytes", "0")
    assert ended.code == 2 and "--cache-bytes 0: expected 1 or more" in ended.err
    ended = trainer("evaluate", "--weights", "x", "--cache-bytes", "much")
    assert ended.code == 2 and "'much': expected a number of bytes such as 256MB, 1GiB or 1000000" in ended.err
    ended = trainer("--shards", "nowhere://x/y")
    assert ended.code == 2 and "unknown store nowhere://" in ended.err


# ---- decoded


def test_compressed_shards_are_decoded_once_to_what_npy_shards_are(store: Store, tmp_path: Path) -> None:
    npy, _ = trained(tmp_path / "npy", "--shards", store.local / "one-npy" / "scale_2x")
    cache = tmp_path / "cache"
    args = ("--shards", store.address("one-webp"), "--cache", cache, "--cache-decoded")
    webp, said = trained(tmp_path / "webp", *args)
    assert same(webp, npy)
    assert "images are decoded" not in said and "shards cached, decoded" in said
    assert {name.partition(".")[2] for name in all_files(cache)} == {"lock", "npy.tar", "npy.idx", "npy.json"}
    for suffix in (".tar", ".idx"):
        decoded = {path.read_bytes() for path in cache.glob(f"*{suffix}")}
        assert decoded == {path.read_bytes() for path in (store.local / "one-npy" / "scale_2x").glob(f"*{suffix}")}
    assert store.requests() == 2
    again, _ = trained(tmp_path / "again", *args, "--verify")
    assert same(again, npy)
    assert store.requests() == 2


def test_what_is_in_the_cache_compressed_is_decoded_from_there(store: Store, tmp_path: Path) -> None:
    compressed = shards_of(store, tmp_path, "one-webp")
    record = records_of(store, "one-webp")[0]
    compressed.fetch(record)
    decoded = shards_of(store, tmp_path, "one-webp", decode=True)
    decoded.fetch(record)
    assert store.requests() == 1 and compressed.tar(record).exists()
    one, other = (shards.open(shards.tar(record), record.samples) for shards in (compressed, decoded))
    for name, size in (("hr", 64), ("lr", 32), ("up", 64)):
        assert (one.image(3, name, "webp", size) == other.image(3, name, "npy", size)).all()
    assert one.description(3) == other.description(3)


def test_what_is_damaged_in_the_cache_is_not_decoded(store: Store, tmp_path: Path) -> None:
    compressed, decoded = (shards_of(store, tmp_path, "one-webp", decode=decode) for decode in (False, True))
    record = records_of(store, "one-webp")[0]
    compressed.fetch(record)
    overwrite(compressed.tar(record), 2000, bytes(100))
    decoded.fetch(record)
    expected = (store.local / "one-npy" / "scale_2x" / f"{record.name}.tar").read_bytes()
    assert decoded.tar(record).read_bytes() == expected
    assert store.requests() == 2 and not compressed.tar(record).exists()


@pytest.mark.parametrize(
    ("content", "num_samples", "message"),
    [
        (b"not a tar" * 1000, 1, "is not a complete tar"),
        (bytes(10240), 1, "expected 1 samples as in the manifest, found 0"),
    ],
)
@pytest.mark.parametrize("decode", [False, True])
def test_bytes_that_are_the_manifests_and_not_a_shard_are_named(
    store: Store, tmp_path: Path, content: bytes, num_samples: int, message: str, decode: bool
) -> None:
    store.bucket.server.put(store.bucket.name, "odd/train-000000.tar", content)
    record = ShardRecord("train-000000", "train", num_samples, len(content), hashlib.sha256(content).hexdigest())
    decoder = Decoder.of(open_shards(store.local / "one-webp" / "scale_2x").manifest) if decode else None
    shards = CachedShards(CacheFolder(tmp_path), Origin(parse_address(store.address("odd")), ""), [record], decoder)
    with pytest.raises(
        RunError, match=f"odd/train-000000.tar:? {message}.*; run `python -m shardgen verify s3://.*/odd --fix`"
    ):
        shards.fetch(record)
    assert all_files(tmp_path) == {".lock"}


def test_an_image_that_cannot_be_decoded_is_a_damaged_member(tmp_path: Path, store: Store) -> None:
    folder = store.local / "one-webp" / "scale_2x"
    tar = folder / "train-000000.tar"
    index = load_index(tar.with_suffix(".idx"))
    content = bytearray(tar.read_bytes())
    member = index[2][0]
    content[member.offset : member.offset + member.size // 2] = bytes(member.size // 2)
    broken = tmp_path / "broken.tar"
    broken.write_bytes(content)
    decoder = Decoder.of(open_shards(folder).manifest)
    with open(broken, "rb") as raw, open(tmp_path / "out.tar", "wb+", buffering=0) as out:
        text, size, _ = decoder.write(raw, index, out)
    assert size == (tmp_path / "out.tar").stat().st_size
    (tmp_path / "out.idx").write_bytes(text)
    shard = MappedShard(tmp_path / "out.tar", len(index))
    with pytest.raises(DamagedMember, match=r"sample 2 has no hr\.npy"):
        shard.image(2, "hr", "npy", 64)
    assert shard.image(3, "hr", "npy", 64).shape == shard.image(2, "up", "npy", 64).shape


# ---- what lies in the cache already


@pytest.mark.parametrize("name", ["npy", "one-webp"])
def test_verify_finds_bytes_that_changed_in_the_cache(store: Store, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    args = ("--shards", store.address(name), "--cache", cache, *(["--cache-decoded"] if "webp" in name else []))
    before, _ = trained(tmp_path / "before", *args)
    tar = max(cache.glob("*.tar"), key=lambda path: path.stat().st_size)
    overwrite(tar, 2000, bytes(range(200)) * 300)
    store.bucket.proxy.heal()
    after, _ = trained(tmp_path / "after", *args, "--verify")
    assert same(after, before)
    assert store.requests() == 1


def test_a_large_set_is_little_for_each_worker(tmp_path: Path) -> None:
    records = [ShardRecord(f"train-{n:06d}", "train", n, 2 * n, sha256(bytes(n)).hexdigest()) for n in range(1000)]
    shards = CachedShards(CacheFolder(tmp_path, 1), Origin(tmp_path, ""), records)
    travelled = pickle.dumps(shards)
    assert len(travelled) < 200 * len(records)
    again: CachedShards = pickle.loads(travelled)
    assert list(again._records) == records
    assert [again._records.of(record.sha256) for record in records] == records


def test_processes_that_verify_each_do_a_part(store: Store, tmp_path: Path) -> None:
    shards, records = shards_of(store, tmp_path), records_of(store)
    for record in records:
        shards.fetch(record)
    hashed: list[list[int]] = [[], []]
    for part in range(2):
        opened = open_shards(store.address("npy"), cache=tmp_path)
        opened.verify(hashed[part].append, part, 2)
    assert list(map(sum, hashed)) == [sum(record.bytes for record in records[part::2]) for part in range(2)]


@pytest.mark.parametrize("suffix", [".tar", ".idx"])
def test_a_file_that_was_cut_off_is_fetched_again(store: Store, tmp_path: Path, suffix: str) -> None:
    record = records_of(store)[0]
    shards = shards_of(store, tmp_path)
    shards.fetch(record)
    os.truncate(shards.tar(record).with_suffix(suffix), 100)
    assert len(shards.open(shards.tar(record), record.samples)) == record.samples
    assert store.requests() == 2


# ---- ahead


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(0, 60),
    st.integers(1, 8),
    st.sampled_from([1, 2, 3]),
)
def test_all_that_workers_need_is_wanted(
    sizes: list[int], block: int, batch: int, step: int, ahead: int, times: int
) -> None:
    schedule = Schedule(sizes, sizes, 0, batch, times, block)
    records = tuple(ShardRecord(f"train-{n:06d}", "train", size, size, "") for n, size in enumerate(sizes))
    stop = step + ahead + 5
    wanted = [record.name for record in PrefetchWindow(schedule, records, ahead, stop).wanted(step)]
    assert len(set(wanted)) == len(wanted)
    for number in range(step, step + ahead):
        for sample in schedule.batch(number).numbers.tolist():
            assert f"train-{schedule.shard_of(sample)[0]:06d}" in wanted


def test_the_next_block_is_fetched_while_this_one_is_used(store: Store, tmp_path: Path) -> None:
    shards = shards_of(store, tmp_path)
    records = tuple(record for record in records_of(store) if record.split == "train")
    samples = [record.samples for record in records]
    schedule = Schedule(samples, [record.bytes for record in records], 0, 1, block_bytes=1)  # a shard is a block
    blocks = schedule.blocks(0)
    order = [int(blocks.shards(block)[0]) for block in range(len(blocks))]
    is_there = [shards.tar(records[shard]).exists for shard in order]
    nothing = torch.zeros(0)

    class Steps:
        """Batches that nobody reads: whatever comes into the cache, the other process has fetched."""

        wait_s = 0.0

        def started(self) -> Iterator[PatchBatch]:
            return (PatchBatch(nothing, nothing, ()) for _ in range(sum(samples)))

    batches = PrefetchedBatches(Steps(), shards, PrefetchWindow(schedule, records, 1, sum(samples)), 0).started()
    next(batches)
    until(lambda: is_there[0]() and is_there[1]())
    assert not is_there[3]()
    for _ in range(samples[order[0]] + samples[order[1]]):
        next(batches)
    until(is_there[3])
    assert store.requests() == 4
    batches.close()  # type: ignore[attr-defined]


def test_runs_that_share_too_small_a_cache_ask_for_each_shard_once(store: Store, tmp_path: Path) -> None:
    """Each takes the room from the other, whose shards nobody has mapped yet."""
    records = [record for record in records_of(store) if record.split == "train"]
    shards = shards_of(store, tmp_path, limit=sum(sorted(record.bytes for record in records)[-2:]) + 20_000)
    with ThreadPoolExecutor(2) as pool:
        fetchers = []
        for own in (records[:2], records[2:]):
            schedule = Schedule([r.samples for r in own], [r.bytes for r in own], 0, 1)
            fetchers.append(ShardFetcher(shards, PrefetchWindow(schedule, tuple(own), 1, 1), pool))
        for _ in range(10):
            for fetcher in fetchers:
                fetcher.update(0)
                until(lambda found=fetcher: all(future.done() for future in found._under_way.values()))
    assert store.requests() == 4
    assert not all(shards.tar(record).exists() for record in records)


def test_nothing_is_removed_that_does_not_make_room_enough(store: Store, tmp_path: Path) -> None:
    records = sorted(records_of(store), key=lambda record: record.bytes)
    shards = shards_of(store, tmp_path, limit=sum(record.bytes for record in records[1:3]) + 20_000)
    for record in records[1:3]:
        shards.fetch(record)
    mapped = shards.open(shards.tar(records[2]), records[2].samples)
    with shards.cache.claim("0" * 64) as file, pytest.raises(NoRoomError, match=r"has no room for [\d.]+ kB"):
        assert file is not None
        shards.cache.reserve(file, records[1].bytes + 30_000)
    assert shards.tar(records[1]).exists() and len(mapped)


def test_the_fetcher_ends_with_the_iteration_and_leaves_nothing_half_written(store: Store, tmp_path: Path) -> None:
    store.bucket.proxy.break_next("stall_body", "GET", "*.tar", times=inf)
    shards = shards_of(store, tmp_path)
    records = tuple(record for record in records_of(store) if record.split == "train")
    schedule = Schedule([r.samples for r in records], [r.bytes for r in records], 0, 1)

    class Steps:
        wait_s = 0.0

        def started(self) -> Iterator[PatchBatch]:
            until(lambda: half_written(tmp_path))
            yield PatchBatch(torch.zeros(0), torch.zeros(0), ())

    assert (
        np.sum([1 for _ in PrefetchedBatches(Steps(), shards, PrefetchWindow(schedule, records, 1, 1), 0).started()])
        == 1
    )
    assert not half_written(tmp_path)
