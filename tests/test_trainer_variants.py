"""Variants: each of the N degradations of a sample is used once in N epochs. And shards without `up`."""

import hashlib
import json
import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SMALL, trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trainer_stream import CPU, SEED, contents, loaded, resident
from test_trainer_stream import reader_of as stream_reader

from shardgen.shard.writer import ShardWriter
from srshards import native
from srshards.format import (
    CODECS,
    MANIFEST_NAME,
    ShardRecord,
    dump_json,
    image_codec,
    image_extension,
    image_names,
    sample_key,
    shard_name,
)
from srshards.imaging import codec as codecs
from srshards.loader.batches import BatchReader, DamagedRow, DamagedSample, Patches
from srshards.loader.resident import ResidentBatches, resident_bytes
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Rows
from srshards.sampling.patches import NUM_SYMMETRIES, PatchGrid
from srshards.sampling.schedule import BatchSamples, Schedule
from srshards.shards.mapped import MappedShard
from srshards.shards.opening import open_shards
from srshards.terminal.sizes import format_bytes
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.describe import describe
from trainer.training.learner import Learner

SCALE, HR_PX, PATCH_PX = 2, 32, 16
SAMPLES_OF_SHARDS = (13, 8)  # of the training split
NUM_SAMPLES, NUM_VAL = sum(SAMPLES_OF_SHARDS), 3
UP = 200  # marks `up` in the channel that holds the variant in an LR image
BATCH = 6
PINNED = [0, 4, 2, 3, 1, 0, 1, 2, 0, 3, 1, 2]
# SHA-256 of twelve batches of a version without variants.
BEFORE = {
    "lr": "f683fef719c95154889f68212ea0d64439275d85d052561ede7154a875187d2d",
    "up": "591c1458e92e79c370c49b4ab42ff4e97f8fcea703d13c0f255902cf6af80f2a",
}
Edit = Callable[[int, dict[str, list[Any]]], object]


def picture(name: str, number: int) -> np.ndarray:  # type: ignore[type-arg]
    """Return an image whose channels are the sample's number, the kind of image and the cell of the 16 x 16 LR grid."""
    size = HR_PX if name in ("hr", "up") else HR_PX // SCALE
    y, x = np.divmod(np.arange(size * size).reshape(size, size), size)
    factor = size * SCALE // HR_PX
    kind = {"hr": 0, "lr": 0, "up": UP}.get(name) or int(name[2:] if name[2:].isdigit() else 0)
    cell = y // factor * (HR_PX // SCALE) + x // factor
    return np.stack([np.full_like(y, number), np.full_like(y, kind), cell], axis=2).astype(np.uint8)


def make_folder(
    folder: Path,
    variants: int,
    codec: str = "npy",
    has_up: bool = True,
    version: int = 2,
    degradation: Any = None,
    edit: Edit = lambda number, members: None,
) -> Path:
    """Write the folder of a scale. `edit` may change the members (extension: content) of a training sample."""
    folder.mkdir(parents=True)
    records: list[ShardRecord] = []
    number = 0
    shards = [("train", shard, samples) for shard, samples in enumerate(SAMPLES_OF_SHARDS)]
    for split, shard, samples in (*shards, ("val", 0, NUM_VAL)):
        writer = ShardWriter(folder, folder, shard_name(split, shard), split)
        for index in range(samples):
            names = image_names(variants if split == "train" else 1, has_up)
            members = {
                image_extension(name, codec): list(codecs.encode(image_codec(name, codec), picture(name, number)))
                for name in names
            }
            members["json"] = [dump_json({"source": f"{number}.png", "box": [0, 0, HR_PX, HR_PX]}, None)]
            if split == "train":
                edit(number, members)
            writer.add(sample_key(split, shard, index), list(members.items()))
            number += 1
        record = writer.commit()
        assert record is not None
        records.append(record)
    new = {"variants": variants, "up": has_up, "degradation": degradation} if version == 2 else {}
    manifest = {
        "format_version": version,
        "settings": {"scale": SCALE, "hr_size": HR_PX, "codec": codec, "method": "cubic", **new},
        "shards": [record.as_dict() for record in records],
    }
    (folder / MANIFEST_NAME).write_bytes(dump_json(manifest))
    return folder


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A cached factory of shard folders. Tests must not modify them."""
    root = tmp_path_factory.mktemp("variants")
    known: dict[str, Path] = {}

    def make(variants: int, codec: str = "npy", **options: Any) -> Path:
        name = "-".join(map(str, (variants, codec, *options.values())))
        if name not in known:
            known[name] = make_folder(root / name, variants, codec, **options)
        return known[name]

    return make


def reader_of(folder: Path, times: int = 1, input_name: str = "lr", batch: int = BATCH) -> BatchReader:
    return stream_reader(folder, PATCH_PX, input_name, batch, times)


def read(reader: BatchReader, steps: range) -> tuple[Patches, tuple[DamagedRow, ...]]:
    """Return the patches of a chunk (steps x rows) and the damaged rows."""
    rows = range(reader.schedule.global_batch)
    to = reader.lay_out(np.empty(len(steps) * len(rows) * reader.grid.bytes_per_row, np.uint8), len(steps), len(rows))
    return to, reader.read(steps, rows, to)


# ---- order of variants


@given(st.integers(1, 64), st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(0, 10**9))
def test_n_consecutive_epochs_show_each_of_n_variants_once(count: int, seed: int, epoch: int, number: int) -> None:
    epochs = np.arange(epoch, epoch + count)
    shown = BatchSamples(epochs, np.full(count, number)).variants(seed, count)
    assert sorted(shown.tolist()) == list(range(count))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))
def test_a_run_shows_each_variant_of_each_sample_equally_often(
    sizes: list[int], batch: int, count: int, times: int
) -> None:
    """With K patches per sample: after N x K epochs, each of the N variants has been shown K times."""
    schedule = Schedule(sizes, sizes, SEED, batch, times)
    epochs = count * times
    shown: Counter[tuple[int, int]] = Counter()
    for step in range(times * -(-count * sum(sizes) // batch)):
        draws = schedule.batch(step)
        in_run = draws.epochs < epochs
        variants = draws.variants(SEED, count)
        shown.update(zip(draws.numbers[in_run].tolist(), variants[in_run].tolist(), strict=True))
    assert shown == dict.fromkeys(product(range(sum(sizes)), range(count)), times)


def test_the_order_of_variants_is_fixed_and_depends_on_the_seed() -> None:
    draws = BatchSamples(np.zeros(12, np.int64), np.arange(12))
    assert draws.variants(SEED, 5).tolist() == PINNED  # a resumed run must see the same variants
    assert draws.variants(SEED + 1, 5).tolist() != PINNED


def test_variants_and_symmetries_are_independent() -> None:
    count = 20_000
    draws = BatchSamples(np.full(count, 7), np.arange(count))
    symmetries = [cut.symmetry for cut in PatchGrid(HR_PX, SCALE, PATCH_PX, SCALE).cuts(SEED, draws)]
    found = Counter(zip(draws.variants(SEED, 4).tolist(), symmetries, strict=True))
    expected = count / (4 * NUM_SYMMETRIES)
    assert len(found) == 4 * NUM_SYMMETRIES
    assert all(abs(times - expected) < 5 * expected**0.5 for times in found.values())


# ---- batches


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("times", [1, 4])
def test_a_row_pairs_the_variant_of_its_epoch_with_the_hr_of_its_sample(
    folder_of: Callable[..., Path], codec: str, times: int
) -> None:
    reader = reader_of(folder_of(3, codec), times)
    for first in range(0, 20, times):
        steps = range(first, first + times)
        patches, damaged = read(reader, steps)
        assert not damaged
        for step, hr, small in zip(steps, patches.hr, patches.input, strict=True):
            draws = reader.schedule.batch(step)
            numbers, variants = draws.numbers[:, None, None], draws.variants(SEED, 3)[:, None, None]
            assert (small[..., 0] == numbers).all() and (hr[..., 0] == numbers).all()
            assert (small[..., 1] == variants).all()
            assert (np.repeat(np.repeat(small[..., 2], SCALE, 1), SCALE, 2) == hr[..., 2]).all()
        if times == 4:  # four patches of each sample, one epoch apart: variants 0 1 2 0, or 1 2 0 1, or ...
            seen = patches.input[:, :, 0, 0, 1].astype(int)
            assert (np.diff(seen, axis=0) % 3 == 1).all()


@pytest.mark.parametrize("codec", ["npy", "png", "tlc"])
@pytest.mark.parametrize("times", [1, 3])
def test_batches_do_not_depend_on_workers_ranks_or_source(
    folder_of: Callable[..., Path], codec: str, times: int
) -> None:
    reader, rows = reader_of(folder_of(4, codec), times), Rows(3, micro_batches=2)
    expected = loaded(reader, rows, 0, 16, 0)
    assert loaded(reader, rows, 0, 16, 1) == expected
    assert loaded(reader, rows, 0, 16, 3) == expected
    assert loaded(reader, rows, 5, 16, 3) == expected[10:]
    assert contents(resident(reader, rows, 0, 16)) == expected
    assert contents(resident(reader, rows, 5, 16)) == expected[10:]
    ranks = [loaded(reader, Rows(3, 1, rank, 2), 0, 16, 0) for rank in (0, 1)]
    assert [batch for both in zip(*ranks, strict=True) for batch in both] == expected


@pytest.mark.parametrize("codec", ["npy", "png", "tlc"])
def test_up_ignores_variants(folder_of: Callable[..., Path], codec: str) -> None:
    reader, rows = reader_of(folder_of(3, codec), 1, "up"), Rows(BATCH)
    found = loaded(reader, rows, 0, 12, 0)
    assert found == loaded(reader_of(folder_of(1, codec), 1, "up"), rows, 0, 12, 0)
    assert found == contents(resident(reader, rows, 0, 12))
    assert {UP} == {int(kind) for kind in np.unique(read(reader, range(12))[0].input[..., 1])}


def test_one_variant_gives_the_batches_of_format_version_1(folder_of: Callable[..., Path]) -> None:
    for codec in ("npy", "png"):
        for input_name, expected in BEFORE.items():
            for folder in (folder_of(1, codec, version=1), folder_of(1, codec)):
                sha256 = hashlib.sha256(repr(loaded(reader_of(folder, 1, input_name), Rows(BATCH), 0, 12, 0)).encode())
                assert sha256.hexdigest() == expected


# ---- cost


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often each image is read from a shard (and decoded, if compressed)."""
    counts: Counter[str] = Counter()
    image = MappedShard.image

    def counted(self: MappedShard, index: int, name: str, codec: str, size: int) -> Any:
        counts[name] += 1
        return image(self, index, name, codec, size)

    monkeypatch.setattr(MappedShard, "image", counted)
    return counts


@pytest.mark.parametrize("codec", ["png", "webp"])
@pytest.mark.parametrize(("variants", "times"), [(1, 4), (2, 4), (4, 4), (4, 2), (3, 8)])
def test_steps_that_share_a_sample_decode_each_image_once(
    folder_of: Callable[..., Path], reads: Counter[str], codec: str, variants: int, times: int
) -> None:
    reader = reader_of(folder_of(variants, codec), times)
    chunks = 5
    for first in range(0, chunks * times, times):
        read(reader, range(first, first + times))
    assert reads["hr"] == chunks * BATCH
    assert sum(reads.values()) - reads["hr"] == chunks * BATCH * min(variants, times)


def test_headers_are_read_once_while_a_shard_is_open(
    folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of images that are used, and again after the shard was closed."""
    checked: list[int] = []
    have_bytes = native.have_bytes

    def counted(maps: Any, positions: Any, expected: bytes) -> Any:
        checked.append(len(positions))
        return have_bytes(maps, positions, expected)

    monkeypatch.setattr(native, "have_bytes", counted)
    reader = reader_of(folder_of(3), batch=NUM_SAMPLES)  # a step is an epoch
    expected = [NUM_SAMPLES * 2, NUM_SAMPLES * 3, NUM_SAMPLES * 4, NUM_SAMPLES * 4]  # HR, and a variant in each epoch
    for step, number in enumerate(expected):
        read(reader, range(step, step + 1))
        assert sum(checked) == number
    reader.close()
    read(reader, range(1))
    assert sum(checked) == expected[-1] + NUM_SAMPLES * 2


@pytest.mark.parametrize("codec", ["npy", "png"])
def test_cached_images_are_not_pickled_and_do_not_keep_shards_open(folder_of: Callable[..., Path], codec: str) -> None:
    reader = reader_of(folder_of(3, codec))
    read(reader, range(6))
    pickled = pickle.dumps(reader)
    assert not any(picture("hr", number).tobytes() in pickled for number in range(NUM_SAMPLES))
    maps = [weakref.ref(shard._map) for shard in reader._open._open.values()]
    assert len(maps) == 2 and all(each() is not None for each in maps)
    reader.close()
    assert [each() for each in maps] == [None, None]


@pytest.mark.parametrize(("variants", "expected_names"), [(1, {"hr"}), (3, {"hr", "lr", "lr1", "lr2"})])
def test_only_the_next_variant_is_read_ahead(
    folder_of: Callable[..., Path], variants: int, expected_names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HR is in memory since the previous epoch; a variant that is shown for the first time may not be."""
    checked: set[str] = set()
    ahead: list[tuple[int, str]] = []

    def in_memory(self: MappedShard, index: int, name: str, *rest: object) -> bool:
        checked.add(name)
        return name == "hr"

    monkeypatch.setattr(MappedShard, "in_memory", in_memory)
    monkeypatch.setattr(MappedShard, "read_ahead", lambda self, index, name, *rest: ahead.append((index, name)))
    reader = reader_of(folder_of(variants))
    for step in range(24):
        ahead.clear()
        reader._cold_chunks = 0
        read(reader, range(step, step + 1))
        draws = reader.schedule.batch(step)
        indexes = [reader.schedule.shard_of(number)[1] for number in draws.numbers.tolist()]
        shown = [reader.input_names[variant] for variant in draws.variants(SEED, variants)]
        images = zip(indexes, shown, strict=True)
        assert ahead == [(index, name) for index, variant in images for name in ("hr", variant) if variants > 1]
    assert checked == expected_names
    ahead.clear()
    resident(reader, Rows(BATCH), 0, 1)
    names = ("hr", *reader.input_names)
    assert set(ahead) == set(product(range(max(SAMPLES_OF_SHARDS)), names))


@pytest.mark.parametrize(("input_name", "variants"), [("lr", 3), ("up", 1)])
def test_resident_bytes_is_the_memory_that_is_allocated(
    folder_of: Callable[..., Path], input_name: str, variants: int
) -> None:
    reader = reader_of(folder_of(3), 1, input_name)
    images = ResidentBatches(reader, Rows(BATCH), 0, 1, CPU)._load()
    num_bytes = resident_bytes(reader.grid, NUM_SAMPLES, variants)
    assert sum(tensor.numel() * tensor.element_size() for tensor in images) == num_bytes
    assert num_bytes == NUM_SAMPLES * 3 * (32 * 32 + (3 * 16 * 16 if input_name == "lr" else 32 * 32))


# ---- damage


def spoil(members: dict[str, list[Any]], extension: str) -> None:
    """Replace a member by zeros of the same size."""
    members[extension] = [bytes(sum(map(len, members[extension])))]


@pytest.mark.parametrize("codec", ["npy", "png"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_damaged_variant_is_replaced_by_that_of_the_next_intact_sample(
    codec: str, times: int, tmp_path: Path
) -> None:
    """Variants 0 and 1 of sample 4, 1 of 5, all of 9 (its HR), and 2 of the last, which the first sample replaces."""
    bad = {(4, "lr1"), (4, "lr"), (5, "lr1"), (9, "hr"), (NUM_SAMPLES - 1, "lr2")}

    def edit(number: int, members: dict[str, list[Any]]) -> None:
        for name in (name for damaged, name in bad if damaged == number):
            spoil(members, f"{name}.{codec}")

    reader = reader_of(make_folder(tmp_path / "s", 3, codec, edit=edit), times)
    replacements = {(4, 0): 5, (4, 1): 6, (5, 1): 6, (9, 0): 10, (9, 1): 10, (9, 2): 10, (NUM_SAMPLES - 1, 2): 0}
    seen: set[tuple[int, int]] = set()
    for first in range(0, 42, times):
        steps = range(first, first + times)
        patches, damaged = read(reader, steps)
        expected = []
        for row, step in product(range(BATCH), range(times)):
            draws = reader.schedule.batch(steps[step])
            number, variant = int(draws.numbers[row]), int(draws.variants(SEED, 3)[row])
            replacement = replacements.get((number, variant), number)
            skipped = range(number, replacement if replacement >= number else NUM_SAMPLES)
            expected += [(step, row, sample) for sample in skipped]
            seen |= {(number, variant)} if skipped else set()
            assert (patches.hr[step, row, ..., 0] == replacement).all()
            assert (patches.input[step, row, ..., 0] == replacement).all()
            assert (patches.input[step, row, ..., 1] == variant).all()
        assert [(step, row, damage.number) for step, row, damage in damaged] == expected
    assert seen == replacements.keys()
    rows = Rows(3, micro_batches=2)
    ring = list(WorkerBatches(reader, rows, 0, 42, 0, 2, CPU).started())
    device = resident(reader, rows, 0, 42)
    assert [batch.damaged for batch in device] == [batch.damaged for batch in ring]
    assert any(batch.damaged for batch in ring) and not all(batch.damaged for batch in ring)
    whole = loaded(reader, rows, 0, 42, 0)
    assert contents(device) == whole
    assert loaded(reader, rows, 7, 42, 3) == whole[14:]


def test_a_missing_variant_is_reported_as_damage(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "s", 3, edit=lambda number, members: members.pop("lr2.npy") if number == 16 else None
    )
    _, damaged = read(reader_of(folder, batch=NUM_SAMPLES), range(3))
    assert [damage for _, _, damage in damaged] == [DamagedSample(16, "train-000001.tar: sample 3 has no lr2.npy")]


def test_a_damaged_variant_is_logged_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(
        tmp_path / "s", 4, edit=lambda number, members: spoil(members, "lr3.npy") if number == 2 else None
    )
    args = ("--shards", folder, "--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 24)  # over four epochs
    result = trainer(*args, "--run", "strict")
    reason = f"train-000000.tar: {sample_key('train', 0, 2)}.lr3.npy: expected 16 x 16 x 3, found damaged data"
    assert result.code == 1 and f"Error: 1 of 21 samples are damaged, more than 0.1%: {reason}" in result.err
    monkeypatch.setattr("trainer.training.damage._MAX_DAMAGED_SHARE", 1.0)
    result = trainer(*args, "--run", "r")
    assert result.code == 0, result.err
    assert result.err.count(f"Damaged sample replaced by another one: {reason}") == 1
    lines = [json.loads(line) for line in (tmp_path / "r" / "journal.jsonl").read_text().splitlines()]
    (noted,) = [line for line in lines if line["event"] == "damaged"]
    assert noted["reason"] == reason


def test_resident_and_resumed_runs_end_with_the_same_weights(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    size = ("--patch-size", 16, "--epochs", 4, "--val-every", 5)
    args = ("--shards", folder_of(3, "png"), "--out", tmp_path, *SMALL, *size)
    for name in ("complete", "resident"):
        result = trainer(*args, "--run", name, *(["--resident"] if name == "resident" else []))
        assert result.code == 0, result.err
    train_interrupted(tmp_path, args)
    found = [torch.load(tmp_path / run / "model.pth")["params"] for run in ("complete", "resident", "halted")]
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


def train_interrupted(out: Path, args: tuple[object, ...]) -> None:
    """Train a run that fails in its 8th step, after a validation, and resume it."""
    real = Learner.step

    def step(self: Learner, index: int, batches: Any) -> torch.Tensor:
        if index == 7:
            raise MemoryError
        return real(self, index, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", step)
        assert trainer(*args, "--run", "halted").code == 2
    result = trainer("--out", out, "--run", "halted", "--resume")
    assert result.code == 0 and "resumed at step 5" in result.err


# ---- shards without `up`, output of commands


def test_shards_with_and_without_up_have_both_inputs(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    bare, full = folder_of(3, has_up=False), folder_of(3)
    args = ("--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 1)
    assert trainer("--shards", bare, *args, "--run", "lr").code == 0
    assert trainer("--shards", full, *args, "--run", "up", "--input", "up").code == 0
    for run, folder in (("lr", bare), ("up", full), ("up", bare)):
        weights = tmp_path / run / "model.pth"
        result = trainer("evaluate", "--weights", weights, "--shards", folder, "--device", "cpu")
        assert result.code == 0, result.err


def test_the_first_variant_is_evaluated(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    args = ("--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 1, "--run", "r")
    assert trainer("--shards", folder_of(3), *args).code == 0
    for split, count in (("train", NUM_SAMPLES), ("val", NUM_VAL)):
        found = []
        for variants in (1, 3):
            options = ("--shards", folder_of(variants), "--split", split, "--device", "cpu", "--json")
            result = trainer("evaluate", "--weights", tmp_path / "r" / "model.pth", *options)
            assert result.code == 0, result.err
            found.append(json.loads(result.out)["images"])
        assert found[0] == found[1] and len(found[0]) == count


@pytest.mark.parametrize(
    ("options", "summary"),
    [
        ({"variants": 1, "version": 1}, "2x by cubic, npy"),
        ({"variants": 1}, "2x by cubic, npy"),
        ({"variants": 1, "degradation": {"name": "mild", "steps": []}}, "2x by mild, npy"),
        ({"variants": 8, "degradation": {"name": "realesrgan", "steps": []}}, "2x by realesrgan, 8 variants, npy"),
    ],
)
def test_the_plan_states_the_degradation_of_the_data(options: dict[str, Any], summary: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "s", **options)
    config = TrainConfig(folder, model="ultra_lite", patch_size=PATCH_PX, device="cpu", resident=True)
    first, _, device, *_ = describe(checked_plan(config, open_shards(folder))).splitlines()
    assert first == f"Data     {folder}: {NUM_SAMPLES} train, {NUM_VAL} val samples, HR 32 px, {summary}"
    num_bytes = resident_bytes(PatchGrid(32, 2, 16, 2), NUM_SAMPLES, options["variants"])
    assert f"all samples in device memory ({format_bytes(num_bytes)})" in device


def test_variants_count_towards_the_memory_of_resident_samples(
    folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Memory for one variant and for training is not enough for eight variants."""
    needed = resident_bytes(PatchGrid(32, 2, 16, 2), NUM_SAMPLES, 1)
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 1.3 * needed)
    args = ("--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 1, "--resident")
    assert trainer("--shards", folder_of(1), *args).code == 0
    result = trainer("--shards", folder_of(8), *args)
    assert result.code == 2
    assert "--resident: the images of 21 samples take " in result.err and "omit --resident" in result.err
