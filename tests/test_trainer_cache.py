"""Shards in an object store: the same training as from a folder, single downloads, the cache, and faults."""

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

import pytest
import torch
from helpers import TIMEOUT_S, all_files, generate, overwrite, trainer, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from srshards.errors import RunError, UsageError
from srshards.format import ShardRecord
from srshards.loader import sources as sources_module
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.prefetch import PrefetchedBatches
from srshards.loader.shard_fetcher import PrefetchWindow, ShardFetcher
from srshards.process import fork_server
from srshards.sampling import schedule as schedule_module
from srshards.sampling.schedule import Schedule
from srshards.shards import cache_contents as contents_module
from srshards.shards import cache_folder as folder_module
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
from trainer.evaluation.pairs import shard_pairs
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig

SILENCE_S = 5.0  # timeout of a request without a response
TRAINING = (
    *("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--steps", 12, "--device", "cpu"),
    *("--amp", "off", "--run", "it"),
)


class Store(NamedTuple):
    """A bucket with several sets of shards of the same 40 photos, and the local copies."""

    bucket: Bucket
    local: Path

    def address(self, name: str) -> str:
        return f"{self.bucket.address}/{name}"

    def requests(self, pattern: str = "*.tar") -> int:
        return self.bucket.proxy.count("GET", pattern)


def stop_fork_server() -> None:
    """Stop the fork server, because its children inherit the environment in which it was started."""
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
        stop_fork_server()
        for folder in local.iterdir():
            bucket.put_folder(folder / "scale_2x", folder.name)
        yield Store(bucket, local)
        stop_fork_server()
    forget_stores()


@pytest.fixture
def store(_store: Store) -> Store:
    _store.bucket.proxy.heal()
    return _store


def trained(out: Path, *args: object, expect: int = 0) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights and the stderr of a short training in this process."""
    result = trainer(*TRAINING, "--workers", 0, "--out", out, *args)
    assert result.code == expect, result.err
    return (weights(out) if expect == 0 else {}), result.err


def weights(out: Path) -> dict[str, torch.Tensor]:
    params: dict[str, torch.Tensor] = torch.load(out / "it" / "model.pth")["params"]
    return params


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def from_folder(_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the same training from a local folder."""
    return trained(tmp_path_factory.mktemp("runs"), "--shards", _store.local / "npy" / "scale_2x")[0]


def partial_files(cache: Path) -> set[str]:
    return {name for name in all_files(cache) if name.endswith((".part", ".raw"))}


def shards_of(store: Store, cache: Path, name: str = "npy", decode: bool = False, limit: int = 10**9) -> CachedShards:
    cached = open_shards(store.address(name), cache=cache, cache_bytes=limit, decode=decode).cached
    assert cached is not None
    return cached


def records_of(store: Store, name: str = "npy") -> tuple[ShardRecord, ...]:
    return open_shards(store.local / name / "scale_2x").manifest.shards


# ---- equal results


def test_training_from_a_store_downloads_each_shard_once(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """With two workers and the fetcher, which all need all shards. A second training downloads nothing."""
    cache = tmp_path / "cache"
    args = ("--shards", store.address("npy"), "--cache", cache, "--workers", 2)
    result = run_warm("trainer", *TRAINING, *args, "--out", tmp_path)
    assert result.code == 0, result.err
    assert same(weights(tmp_path), from_folder)
    assert f"Cache    {cache}: 0 of 5 shards cached" in result.err
    keys = [f"{store.bucket.name}/npy/{record.name}.tar" for record in records_of(store)]
    assert [store.requests(key) for key in keys] == [1] * 5
    assert store.requests("*.idx") == 0
    again, stderr = trained(tmp_path / "again", *args[:-2])
    assert same(again, from_folder)
    assert store.requests() == 5 and "5 of 5 shards cached" in stderr
    assert not partial_files(cache)


def test_resident_and_cached_training_give_the_same_weights(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    cache = ("--cache", tmp_path / "cache")
    resident, _ = trained(tmp_path / "resident", "--shards", store.address("npy"), *cache, "--resident")
    assert same(resident, from_folder)
    folder, stderr = trained(tmp_path / "folder", "--shards", store.local / "npy" / "scale_2x", *cache)
    assert same(folder, from_folder)
    assert "5 of 5 shards cached" in stderr  # cached files are named by SHA-256


def test_a_run_can_resume_from_a_store_but_not_with_decoding(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    local, address, cache = store.local / "npy" / "scale_2x", store.address("npy"), ("--cache", tmp_path / "cache")
    trained(tmp_path, "--shards", local, "--val-every", 12)
    state = torch.load(tmp_path / "it" / "state.pt", weights_only=True)
    state["progress"]["validated"] = False  # a finished run would not train
    torch.save(state, tmp_path / "it" / "state.pt")
    resuming = ("--out", tmp_path, "--run", "it", "--resume", "--workers", 0)
    result = trainer(*resuming, "--shards", address, *cache, "--cache-bytes", "2GB")
    assert result.code == 0, result.err
    assert same(weights(tmp_path), from_folder)
    settings = (tmp_path / "it" / "config.yaml").read_text()
    assert f"shards: {address}" in settings and "cache-bytes: 2000000000" in settings
    result = trainer(*resuming)  # with the address from config.yaml
    assert result.code == 0, result.err
    result = trainer(*resuming, "--cache-decoded")
    assert result.code == 2 and "was started without --cache-decoded, not with it" in result.err


def test_evaluate_reads_from_a_store(store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"params": from_folder}, tmp_path / "w.pth")
    common = ("evaluate", "--weights", tmp_path / "w.pth", "--json", "--split", "train", "--shards")
    found = trainer(*common, store.address("npy"), "--cache", tmp_path / "cache")
    assert found.code == 0, found.err
    expected = json.loads(trainer(*common, store.local / "npy" / "scale_2x").out)
    assert json.loads(found.out)["images"] == expected["images"]
    assert store.requests() == 4


# ---- faults of the store


@pytest.mark.parametrize("fault", ["500", "reset", "reset_body", "truncate", "stall", "stall_body", "wrong_bytes"])
def test_transient_faults_do_not_change_the_result(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path, fault: Any
) -> None:
    store.bucket.proxy.break_next(fault, "GET", "*/train-000001.tar")
    found, _ = trained(tmp_path, "--shards", store.address("npy"), "--cache", tmp_path / "cache")
    assert store.bucket.proxy.faults[fault] == 1
    assert same(found, from_folder)
    assert not partial_files(tmp_path / "cache")


@pytest.mark.parametrize("fault", ["500", "wrong_bytes"])  # wrong_bytes has a wrong checksum too
def test_permanent_faults_are_reported(store: Store, tmp_path: Path, fault: Any) -> None:
    store.bucket.proxy.break_next(fault, "GET", "*/train-000001.tar", times=inf)
    _, stderr = trained(tmp_path, "--shards", store.address("npy"), "--cache", tmp_path / "cache", expect=1)
    assert f"Error: cannot read {store.address('npy')}/train-000001.tar: " in stderr and "tried 6 times in " in stderr
    assert "Traceback" not in stderr
    assert not partial_files(tmp_path / "cache")
    broken = next(record.sha256 for record in records_of(store) if record.name == "train-000001")
    assert not any(name.startswith(broken) for name in all_files(tmp_path / "cache"))


def test_a_wrong_checksum_is_retried_and_then_reported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = records_of(store)[0]
    shards = shards_of(store, tmp_path)
    pieces, requested = contents_module.pieces, []

    def corrupted(address: Any, size: int) -> Iterator[bytes]:
        requested.append(address)
        for piece in pieces(address, size):
            yield piece if len(requested) > num_wrong else bytes(len(piece))

    monkeypatch.setattr(contents_module, "pieces", corrupted)
    num_wrong = 3
    with pytest.raises(RunError, match=f"{record.name}.tar: SHA-256 differs from manifest.json, at each of 3 attempts"):
        shards.fetch(record)
    assert all_files(tmp_path) == {".lock"}
    requested.clear()
    num_wrong = 2
    shards.fetch(record)
    assert len(requested) == 3
    assert shards.tar(record).read_bytes() == (store.local / "npy/scale_2x" / f"{record.name}.tar").read_bytes()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("npy/nothing", "npy/nothing: this folder has no manifest.json; to generate shards, run"),
        ("", "expected the folder of one scale; pass --shards s3://"),
    ],
)
def test_wrong_addresses_are_reported(store: Store, tmp_path: Path, key: str, message: str) -> None:
    _, stderr = trained(tmp_path, "--shards", f"{store.bucket.address}/{key}", expect=2)
    assert message in stderr


def test_an_unreadable_manifest_is_a_failure(store: Store, tmp_path: Path) -> None:
    store.bucket.proxy.break_next("500", "*", "*/manifest.json", times=inf)
    _, stderr = trained(tmp_path, "--shards", store.address("npy"), expect=1)
    assert f"Error: cannot read {store.address('npy')}/manifest.json: " in stderr


def test_missing_and_incomplete_shards_are_reported(store: Store, tmp_path: Path) -> None:
    server, bucket = store.bucket.server, store.bucket.name
    for path in (store.local / "npy" / "scale_2x").iterdir():
        server.put(bucket, f"copy/{path.name}", path.read_bytes())
    server.put(bucket, "copy/train-000002.tar", b"short")
    _, stderr = trained(tmp_path, "--shards", store.address("copy"), "--cache", tmp_path / "c", expect=2)
    assert "copy/train-000002.tar: expected " in stderr and "found 5; run `python -m shardgen verify" in stderr
    server.delete(bucket, "copy/train-000002.tar")
    _, stderr = trained(tmp_path, "--shards", store.address("copy"), "--cache", tmp_path / "c", expect=2)
    assert "copy/train-000002.tar is listed in the manifest but missing" in stderr


def test_a_manifest_cannot_refer_to_files_outside_the_cache(store: Store, tmp_path: Path) -> None:
    folder = store.local / "npy" / "scale_2x"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["shards"][0]["sha256"] = "../../outside"
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    _, stderr = trained(tmp_path, "--shards", copy, "--cache", tmp_path / "cache", expect=2)
    assert "'../../outside' of train-000000 is not a SHA-256" in stderr


# ---- several processes


def test_two_runs_share_a_cache(store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path) -> None:
    args = ("--shards", store.address("npy"), "--cache", tmp_path / "cache", "--workers", 1)
    outs = [tmp_path / "one", tmp_path / "two"]
    runs = [Warm("trainer", *TRAINING, *args, "--out", out) for out in outs]
    for run in runs:
        result = run.wait(TIMEOUT_S)
        assert result.code == 0, result.err
    assert all(same(weights(out), from_folder) for out in outs)
    assert store.requests() == 5


def test_another_run_takes_over_the_download_of_a_killed_run(
    store: Store, from_folder: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed run has a partial shard whose download would never finish."""
    store.bucket.proxy.break_next("stall_body", "GET", "*/train-000001.tar")
    cache = tmp_path / "cache"
    args = (*TRAINING, "--workers", 0, "--shards", store.address("npy"), "--cache", cache)
    with monkeypatch.context() as patch:
        patch.setenv("SR_STORE_TIMEOUT", "1000")
        killed = Warm("trainer", *args, "--out", tmp_path / "killed")
    wait_until(lambda: store.bucket.proxy.faults["stall_body"])
    other = Warm("trainer", *args, "--out", tmp_path / "other")
    wait_until((tmp_path / "other" / "it" / "config.yaml").exists)  # from now on it waits for that shard
    assert partial_files(cache)
    killed.kill()
    result = other.wait(TIMEOUT_S)
    assert result.code == 0, result.err
    assert same(weights(tmp_path / "other"), from_folder)
    assert store.requests("*/train-000001.tar") == 2 and store.requests() == 6
    assert not partial_files(cache)


# ---- size limit


def test_the_smallest_accepted_cache_is_sufficient(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks of one shard and the required limit, shards are evicted and downloaded again."""
    monkeypatch.setattr(schedule_module, "BLOCK_BYTES", 1)
    local, _ = trained(tmp_path / "local", "--shards", store.local / "npy" / "scale_2x", "--steps", 40)
    train = [record.bytes for record in records_of(store) if record.split == "train"]
    val = sum(record.bytes for record in records_of(store)) - sum(train)
    needed = 2 * max(train) + sum(train) * 4 // 39 + val  # a batch is prefetched, 4 of 39 samples
    needed += needed // 100  # for the indices
    args = ("--shards", store.address("npy"), "--cache", tmp_path / "cache", "--steps", 40, "--prefetch", 1)
    _, stderr = trained(tmp_path / "refused", *args, "--cache-bytes", needed - 1, expect=2)
    size = f"{needed / 1e6:.1f} MB"
    assert f"is limited to {size}, but the shards in use at the same time need {size}; pass --cache-bytes 2MB" in stderr
    found, _ = trained(tmp_path / "found", *args, "--cache-bytes", needed)
    assert same(found, local)
    assert len(list((tmp_path / "cache").glob("*.tar"))) < 5
    assert CacheFolder(tmp_path / "cache").used_bytes() <= needed


def test_the_least_recently_used_shard_is_evicted_unless_mapped(store: Store, tmp_path: Path) -> None:
    records = records_of(store)[:4]
    shards = shards_of(store, tmp_path, limit=sum(record.bytes for record in records) - 1)  # any three fit
    for number, record in enumerate(records[:3]):
        shards.fetch(record)
        os.utime(shards.tar(record), (number, number))
    mapped = shards.open(shards.tar(records[0]), records[0].samples)  # now the most recently used one
    shards.fetch(records[3])
    assert [shards.tar(record).exists() for record in records] == [True, False, True, True]

    os.utime(shards.tar(records[0]), (0, 0))
    pixels = mapped.image(0, "hr", "npy", 64)
    expected = pixels.tobytes()
    del mapped  # `pixels` keeps the map and so the file
    shards.fetch(records[1])
    assert [shards.tar(record).exists() for record in records] == [True, True, False, True]
    with pytest.raises(NoRoomError, match=r"has no room for .*, and the shards in it are in use"):
        shards.fetch(records[2], keep={shards.name(records[1]), shards.name(records[3])})
    assert pixels.tobytes() == expected
    del pixels
    gc.collect()
    shards.fetch(records[2], keep={shards.name(records[1]), shards.name(records[3])})
    assert [shards.tar(record).exists() for record in records] == [False, True, True, True]


def test_a_cache_for_one_shard_is_sufficient_for_evaluation(store: Store, tmp_path: Path) -> None:
    """Even while the evaluated images are referenced."""
    limit = max(record.bytes for record in records_of(store)) + 10_000
    folder = open_shards(store.address("npy"), cache=tmp_path, cache_bytes=limit)
    assert len(list(shard_pairs(folder, "train", False))) == len(folder.train)
    assert store.requests() == len(folder.train.records)


def test_the_required_cache_includes_a_validation_shard_per_rank(store: Store, tmp_path: Path) -> None:
    def refused(ranks: int) -> str:
        folder = open_shards(store.local / "npy" / "scale_2x", cache=tmp_path, cache_bytes=1)
        val_records = tuple(
            dataclasses.replace(record, name=record.name.replace("train", "val"), split="val")
            for record in folder.train.records
        )
        manifest = dataclasses.replace(folder.manifest, shards=(*folder.train.records, *val_records))
        folder = Shards(folder.path, manifest, folder.cached)
        with pytest.raises(UsageError, match="in use at the same time need") as error:
            checked_plan(
                TrainConfig(folder.path, model="ultra_lite", patch_size=24, batch_size=4, workers=0, device="cpu"),
                folder,
                RankInfo(0, ranks, 0, ranks),
            )
        return str(error.value)

    sizes = sorted(record.bytes for record in records_of(store) if record.split == "train")
    for ranks in (1, 2):
        needed = sum(sizes) + sum(sizes[-ranks:])
        assert f"need {(needed + needed // 100) / 1e6:.1f} MB" in refused(ranks)


def test_the_fetcher_counts_steps_rather_than_batches(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one process resumes a run of four."""
    folder = open_shards(store.local / "npy" / "scale_2x", cache=tmp_path, cache_bytes=10**9)
    config = TrainConfig(folder.path, patch_size=24, batch_size=4, ranks=4, steps=5, workers=0, device="cpu")
    calls: list[Any] = []
    monkeypatch.setattr(sources_module, "PrefetchedBatches", lambda *args: calls.append(args))
    checked_plan(config, folder).loader._sources.source(0, 5)
    assert calls[0][-1] == 4


def test_other_files_in_the_cache_folder_are_ignored(store: Store, tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("photos.tar", "film.part", "film.raw", "abc.npy.tar")]
    for path in others:
        path.write_bytes(bytes(100_000))
    one, other = records_of(store)[:2]
    shards = shards_of(store, tmp_path, limit=max(one.bytes, other.bytes) + 10_000)
    assert shards.cache.used_bytes() == 0
    for record in (one, other):  # the second fits only after the first is evicted
        shards.fetch(record)
    shards.cache.sweep()
    assert not shards.tar(one).exists() and all(path.stat().st_size == 100_000 for path in others)


def test_a_full_disk_evicts_shards_or_fails(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, *_, one = sorted(records_of(store), key=lambda record: record.bytes)
    shards = shards_of(store, tmp_path)
    shards.fetch(one)
    usage = folder_module.shutil.disk_usage(tmp_path)._replace(free=other.bytes // 2)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda path: usage)
    shards.fetch(other, keep=frozenset())
    assert not shards.tar(one).exists() and shards.tar(other).exists()
    monkeypatch.undo()

    def full(file: object, content: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(contents_module, "_write", full)
    with pytest.raises(RunError, match="No space left on device; free some disk space, pass another `cache`"):
        shards.fetch(one)
    assert not partial_files(tmp_path)


def test_an_unwritable_cache_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _, stderr = trained(tmp_path, "--shards", store.address("npy"), "--cache", tmp_path / "file" / "cache", expect=2)
    assert f"--cache {tmp_path}/file/cache: cannot write there (Not a directory); pass another folder" in stderr
    _, stderr = trained(tmp_path, "--shards", store.address("npy"), "--cache", "s3://bucket/cache", expect=2)
    assert "s3://bucket/cache is in an object store; expected a local path" in " ".join(stderr.split())


def test_sweep_works_during_interpreter_shutdown(tmp_path: Path) -> None:
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
late.cycle = late  # keeps it until the modules are cleared
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    """In a separate process without root privileges, because root may write anywhere."""
    script = (
        "import os, sys; from pathlib import Path; from srshards.shards.cache_folder import CacheFolder\n"
        "from srshards.errors import UsageError\n"
        "os.getuid() or os.setuid(65534)\n"
        "try: CacheFolder(Path(sys.argv[1]))\n"
        "except UsageError as error: print(error)\n"
    )
    tmp_path.chmod(0o555)
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path / "c")], capture_output=True, text=True)
    assert "cannot write there (Permission denied)" in result.stdout, result.stderr


def test_an_invalid_timeout_is_refused_at_the_start(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_STORE_TIMEOUT", "abc")
    local = ("--shards", store.local / "npy" / "scale_2x", "--cache", tmp_path / "cache")
    _, stderr = trained(tmp_path, *local, "--workers", 1, expect=2)
    assert stderr == "Error: SR_STORE_TIMEOUT=abc: expected a number of seconds above 0, e.g. 30\n"


NOT_A_SIZE = "'much': expected a number of bytes such as 256MB, 1GiB or 1000000"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--shards", "x", "--cache-bytes", "much"), NOT_A_SIZE),
        (("evaluate", "--weights", "x", "--cache-bytes", "much"), NOT_A_SIZE),
        (("--shards", "x", "--cache-bytes", "0"), "--cache-bytes 0: expected 1 or more"),
        (("--shards", "nowhere://x/y"), "unknown store nowhere://"),
    ],
)
def test_invalid_sizes_and_stores_are_refused(args: tuple[str, ...], message: str) -> None:
    result = trainer(*args)
    assert result.code == 2 and message in result.err


# ---- decoding


def test_compressed_shards_are_decoded_once_to_npy_shards(store: Store, tmp_path: Path) -> None:
    npy, _ = trained(tmp_path / "npy", "--shards", store.local / "one-npy" / "scale_2x")
    cache = tmp_path / "cache"
    args = ("--shards", store.address("one-webp"), "--cache", cache, "--cache-decoded")
    webp, stderr = trained(tmp_path / "webp", *args)
    assert same(webp, npy)
    assert "images are decoded" not in stderr and "shards cached, decoded" in stderr
    assert {name.partition(".")[2] for name in all_files(cache)} == {"lock", "npy.tar", "npy.idx", "npy.json"}
    for suffix in (".tar", ".idx"):
        decoded = {path.read_bytes() for path in cache.glob(f"*{suffix}")}
        assert decoded == {path.read_bytes() for path in (store.local / "one-npy" / "scale_2x").glob(f"*{suffix}")}
    assert store.requests() == 2
    again, _ = trained(tmp_path / "again", *args, "--verify")
    assert same(again, npy)
    assert store.requests() == 2


def test_decoding_uses_compressed_shards_in_the_cache(store: Store, tmp_path: Path) -> None:
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


def test_damaged_shards_in_the_cache_are_not_decoded(store: Store, tmp_path: Path) -> None:
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
def test_invalid_tars_with_a_correct_checksum_are_reported(
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


def test_an_undecodable_image_is_a_damaged_member(tmp_path: Path, store: Store) -> None:
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


# ---- existing files


@pytest.mark.parametrize("name", ["npy", "one-webp"])
def test_verify_detects_changed_bytes_in_the_cache(store: Store, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    args = ("--shards", store.address(name), "--cache", cache, *(["--cache-decoded"] if "webp" in name else []))
    before, _ = trained(tmp_path / "before", *args)
    tar = max(cache.glob("*.tar"), key=lambda path: path.stat().st_size)
    overwrite(tar, 2000, bytes(range(200)) * 300)
    store.bucket.proxy.heal()
    after, _ = trained(tmp_path / "after", *args, "--verify")
    assert same(after, before)
    assert store.requests() == 1


def test_pickled_shards_are_small(tmp_path: Path) -> None:
    records = [ShardRecord(f"train-{n:06d}", "train", n, 2 * n, sha256(bytes(n)).hexdigest()) for n in range(1000)]
    shards = CachedShards(CacheFolder(tmp_path, 1), Origin(tmp_path, ""), records)
    content = pickle.dumps(shards)
    assert len(content) < 200 * len(records)
    again: CachedShards = pickle.loads(content)
    assert list(again._records) == records
    assert [again._records.of(record.sha256) for record in records] == records


def test_verify_can_be_divided_among_processes(store: Store, tmp_path: Path) -> None:
    shards, records = shards_of(store, tmp_path), records_of(store)
    for record in records:
        shards.fetch(record)
    hashed: list[list[int]] = [[], []]
    for part in range(2):
        opened = open_shards(store.address("npy"), cache=tmp_path)
        opened.verify(hashed[part].append, part, 2)
    assert list(map(sum, hashed)) == [sum(record.bytes for record in records[part::2]) for part in range(2)]


@pytest.mark.parametrize("suffix", [".tar", ".idx"])
def test_a_truncated_file_is_downloaded_again(store: Store, tmp_path: Path, suffix: str) -> None:
    record = records_of(store)[0]
    shards = shards_of(store, tmp_path)
    shards.fetch(record)
    os.truncate(shards.tar(record).with_suffix(suffix), 100)
    assert len(shards.open(shards.tar(record), record.samples)) == record.samples
    assert store.requests() == 2


# ---- prefetching


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(0, 60),
    st.integers(1, 8),
    st.sampled_from([1, 2, 3]),
)
def test_the_prefetch_window_contains_all_needed_shards(
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


def test_the_next_block_is_prefetched(store: Store, tmp_path: Path) -> None:
    shards = shards_of(store, tmp_path)
    records = tuple(record for record in records_of(store) if record.split == "train")
    samples = [record.samples for record in records]
    schedule = Schedule(samples, [record.bytes for record in records], 0, 1, block_bytes=1)  # a shard is a block
    blocks = schedule.blocks(0)
    order = [int(blocks.shards(block)[0]) for block in range(len(blocks))]
    is_cached = [shards.tar(records[shard]).exists for shard in order]
    nothing = torch.zeros(0)

    class Steps:
        """Empty batches, so that only the fetcher downloads shards."""

        wait_s = 0.0

        def started(self) -> Iterator[PatchBatch]:
            return (PatchBatch(nothing, nothing, ()) for _ in range(sum(samples)))

    batches = PrefetchedBatches(Steps(), shards, PrefetchWindow(schedule, records, 1, sum(samples)), 0).started()
    next(batches)
    wait_until(lambda: is_cached[0]() and is_cached[1]())
    assert not is_cached[3]()
    for _ in range(samples[order[0]] + samples[order[1]]):
        next(batches)
    wait_until(lambda: is_cached[2]() and is_cached[3]())  # in either order
    assert store.requests() == 4
    batches.close()  # type: ignore[attr-defined]


def test_runs_that_share_a_small_cache_download_each_shard_once(store: Store, tmp_path: Path) -> None:
    """Each run could evict shards that the other has not mapped yet."""
    records = [record for record in records_of(store) if record.split == "train"]
    shards = shards_of(store, tmp_path, limit=sum(sorted(record.bytes for record in records)[-2:]) + 20_000)
    with ThreadPoolExecutor(2) as pool:
        fetchers = []
        for part in (records[:2], records[2:]):
            schedule = Schedule([r.samples for r in part], [r.bytes for r in part], 0, 1)
            fetchers.append(ShardFetcher(shards, PrefetchWindow(schedule, tuple(part), 1, 1), pool))
        for _ in range(10):
            for fetcher in fetchers:
                fetcher.update(0)
                wait_until(lambda found=fetcher: all(future.done() for future in found._pending.values()))
    assert store.requests() == 4
    assert not all(shards.tar(record).exists() for record in records)


def test_nothing_is_evicted_if_it_would_not_be_enough(store: Store, tmp_path: Path) -> None:
    records = sorted(records_of(store), key=lambda record: record.bytes)
    shards = shards_of(store, tmp_path, limit=sum(record.bytes for record in records[1:3]) + 20_000)
    for record in records[1:3]:
        shards.fetch(record)
    mapped = shards.open(shards.tar(records[2]), records[2].samples)
    with shards.cache.claim("0" * 64) as file, pytest.raises(NoRoomError, match=r"has no room for [\d.]+ kB"):
        assert file is not None
        shards.cache.reserve(file, records[1].bytes + 30_000)
    assert shards.tar(records[1]).exists() and len(mapped)


def test_the_fetcher_stops_with_the_iteration_without_partial_files(store: Store, tmp_path: Path) -> None:
    store.bucket.proxy.break_next("stall_body", "GET", "*.tar", times=inf)
    shards = shards_of(store, tmp_path)
    records = tuple(record for record in records_of(store) if record.split == "train")
    schedule = Schedule([r.samples for r in records], [r.bytes for r in records], 0, 1)

    class Steps:
        wait_s = 0.0

        def started(self) -> Iterator[PatchBatch]:
            wait_until(lambda: partial_files(tmp_path))
            yield PatchBatch(torch.zeros(0), torch.zeros(0), ())

    batches = PrefetchedBatches(Steps(), shards, PrefetchWindow(schedule, records, 1, 1), 0).started()
    assert len(list(batches)) == 1
    assert not partial_files(tmp_path)
