"""Variants: a sample with N degradations of its HR shows each once in N epochs. And shards without `up`."""

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
from test_trainer_stream import CPU, SEED, loaded

from shardgen.shard.writer import ShardWriter
from srshards.format import MANIFEST_NAME, ShardRecord, dump_json, image_names, sample_key, shard_name
from srshards.imaging import codec as codecs
from srshards.loader import batches as batches_room
from srshards.loader.batches import BatchReader, DamagedRow, DamagedSample, Patches
from srshards.loader.patch_batch import PatchBatch
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
UP = 200  # where an LR image says which variant it is, this one says that it is `up`
BATCH = 6
PINNED = [0, 4, 2, 3, 1, 0, 1, 2, 0, 3, 1, 2]
# sha256 of twelve batches as they came before there were variants.
BEFORE = {
    "lr": "f683fef719c95154889f68212ea0d64439275d85d052561ede7154a875187d2d",
    "up": "591c1458e92e79c370c49b4ab42ff4e97f8fcea703d13c0f255902cf6af80f2a",
}
Edit = Callable[[int, dict[str, list[Any]]], object]


def picture(name: str, number: int) -> np.ndarray:  # type: ignore[type-arg]
    """An image of a sample. Its channels: the sample's number; which image it is; the cell of LR's grid (16 x 16)."""
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
    """A scale's folder. `edit` may change the members (extension: content in pieces) of a training sample."""
    folder.mkdir(parents=True)
    records: list[ShardRecord] = []
    number = 0
    shards = [("train", shard, samples) for shard, samples in enumerate(SAMPLES_OF_SHARDS)]
    for split, shard, samples in (*shards, ("val", 0, NUM_VAL)):
        writer = ShardWriter(folder, folder, shard_name(split, shard), split)
        for place in range(samples):
            names = image_names(variants if split == "train" else 1, has_up)
            members = {f"{name}.{codec}": list(codecs.encode(codec, picture(name, number))) for name in names}
            members["json"] = [dump_json({"source": f"{number}.png", "box": [0, 0, HR_PX, HR_PX]}, None)]
            if split == "train":
                edit(number, members)
            writer.add(sample_key(split, shard, place), list(members.items()))
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of so many variants in a codec, made once. Not to be changed."""
    root = tmp_path_factory.mktemp("variants")
    known: dict[str, Path] = {}

    def make(variants: int, codec: str = "npy", **options: Any) -> Path:
        name = "-".join(map(str, (variants, codec, *options.values())))
        if name not in known:
            known[name] = make_folder(root / name, variants, codec, **options)
        return known[name]

    return make


def reader_of(folder: Path, times: int = 1, input_name: str = "lr", batch: int = BATCH) -> BatchReader:
    shards = open_shards(folder)
    schedule = Schedule(
        [r.samples for r in shards.train.records], [r.bytes for r in shards.train.records], SEED, batch, times
    )
    grid = PatchGrid(HR_PX, SCALE, PATCH_PX, SCALE if input_name == "lr" else 1)
    tars = [(shards.tar(record), record.samples) for record in shards.train.records]
    return BatchReader(tars, shards.codec, schedule, grid, shards.inputs(input_name), SEED)


def read(reader: BatchReader, steps: range) -> tuple[Patches, tuple[DamagedRow, ...]]:
    """The patches of a chunk, steps x rows, and what was damaged."""
    rows = range(reader.schedule.global_batch)
    to = reader.lay_out(np.empty(len(steps) * len(rows) * reader.grid.bytes_per_row, np.uint8), len(steps), len(rows))
    return to, reader.read(steps, rows, to)


def resident(reader: BatchReader, rows: Rows, first: int, stop: int) -> list[PatchBatch]:
    return list(ResidentBatches(reader, rows, first, stop, CPU).started())


def as_bytes(found: list[PatchBatch]) -> list[tuple[bytes, bytes]]:
    return [(batch.hr.numpy().tobytes(), batch.input.numpy().tobytes()) for batch in found]


# ---- the rule


@given(st.integers(1, 64), st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(0, 10**9))
def test_in_any_n_epochs_in_a_row_a_sample_shows_each_of_n_variants_once(
    count: int, seed: int, epoch: int, number: int
) -> None:
    epochs = np.arange(epoch, epoch + count)
    shown = BatchSamples(epochs, np.full(count, number)).variants(seed, count)
    assert sorted(shown.tolist()) == list(range(count))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))
def test_the_steps_of_a_run_show_each_variant_of_each_sample_equally_often(
    sizes: list[int], batch: int, count: int, times: int
) -> None:
    """Through the schedule, with echoes of a sample: whole rounds of K epochs, as many as make whole rounds of N."""
    schedule = Schedule(sizes, sizes, SEED, batch, times)
    epochs = count * times
    shown: Counter[tuple[int, int]] = Counter()
    for step in range(times * -(-count * sum(sizes) // batch)):
        draws = schedule.batch(step)
        whole = draws.epochs < epochs
        variants = draws.variants(SEED, count)
        shown.update(zip(draws.numbers[whole].tolist(), variants[whole].tolist(), strict=True))
    assert shown == dict.fromkeys(product(range(sum(sizes)), range(count)), times)


def test_which_variant_is_shown_is_for_ever_and_depends_on_the_seed() -> None:
    draws = BatchSamples(np.zeros(12, np.int64), np.arange(12))
    assert draws.variants(SEED, 5).tolist() == PINNED  # a resumed run must see the same variants
    assert draws.variants(SEED + 1, 5).tolist() != PINNED


def test_samples_begin_with_all_variants_evenly_and_whatever_their_turn_is() -> None:
    count = 20_000
    draws = BatchSamples(np.full(count, 7), np.arange(count))
    turns = [cut.symmetry for cut in PatchGrid(HR_PX, SCALE, PATCH_PX, SCALE).cuts(SEED, draws)]
    found = Counter(zip(draws.variants(SEED, 4).tolist(), turns, strict=True))
    expected = count / (4 * NUM_SYMMETRIES)
    assert len(found) == 4 * NUM_SYMMETRIES
    assert all(abs(times - expected) < 5 * expected**0.5 for times in found.values())


# ---- batches


@pytest.mark.parametrize("codec", ["npy", "png", "webp"])
@pytest.mark.parametrize("times", [1, 4])
def test_a_row_shows_the_variant_of_its_epoch_beside_the_hr_of_its_sample(
    made: Callable[..., Path], codec: str, times: int
) -> None:
    reader = reader_of(made(3, codec), times)
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
        if times == 4:  # four echoes of the same samples, each of the next epoch: 0 1 2 0, or 1 2 0 1, or ...
            seen = patches.input[:, :, 0, 0, 1].astype(int)
            assert (np.diff(seen, axis=0) % 3 == 1).all()


@pytest.mark.parametrize("codec", ["npy", "png"])
@pytest.mark.parametrize("times", [1, 3])
def test_the_same_batches_from_any_source_and_from_any_step(made: Callable[..., Path], codec: str, times: int) -> None:
    reader, rows = reader_of(made(4, codec), times), Rows(3, micro_batches=2)
    whole = loaded(reader, rows, 0, 16, 0)
    assert loaded(reader, rows, 0, 16, 1) == whole
    assert loaded(reader, rows, 0, 16, 3) == whole
    assert loaded(reader, rows, 5, 16, 3) == whole[10:]
    assert as_bytes(resident(reader, rows, 0, 16)) == whole
    assert as_bytes(resident(reader, rows, 5, 16)) == whole[10:]
    ranks = [loaded(reader, Rows(3, 1, rank, 2), 0, 16, 0) for rank in (0, 1)]
    assert [batch for both in zip(*ranks, strict=True) for batch in both] == whole


@pytest.mark.parametrize("codec", ["npy", "png"])
def test_up_is_always_the_first(made: Callable[..., Path], codec: str) -> None:
    reader, rows = reader_of(made(3, codec), 1, "up"), Rows(BATCH)
    found = loaded(reader, rows, 0, 12, 0)
    assert found == loaded(reader_of(made(1, codec), 1, "up"), rows, 0, 12, 0)
    assert found == as_bytes(resident(reader, rows, 0, 12))
    assert {UP} == {int(kind) for kind in np.unique(read(reader, range(12))[0].input[..., 1])}


def test_one_variant_is_what_version_1_was(made: Callable[..., Path]) -> None:
    for codec in ("npy", "png"):
        for input_name, expected in BEFORE.items():
            for folder in (made(1, codec, version=1), made(1, codec)):
                sha256 = hashlib.sha256(repr(loaded(reader_of(folder, 1, input_name), Rows(BATCH), 0, 12, 0)).encode())
                assert sha256.hexdigest() == expected


# ---- what it costs


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often which image was taken from a shard (and decoded, where it is compressed)."""
    counts: Counter[str] = Counter()
    image = MappedShard.image

    def counted(self: MappedShard, place: int, name: str, codec: str, size: int) -> Any:
        counts[name] += 1
        return image(self, place, name, codec, size)

    monkeypatch.setattr(MappedShard, "image", counted)
    return counts


@pytest.mark.parametrize("codec", ["png", "webp"])
@pytest.mark.parametrize(("variants", "times"), [(1, 4), (2, 4), (4, 4), (4, 2), (3, 8)])
def test_steps_that_share_a_sample_decode_its_hr_once_and_no_variant_twice(
    made: Callable[..., Path], asked: Counter[str], codec: str, variants: int, times: int
) -> None:
    reader = reader_of(made(variants, codec), times)
    chunks = 5
    for first in range(0, chunks * times, times):
        read(reader, range(first, first + times))
    assert asked["hr"] == chunks * BATCH
    assert sum(asked.values()) - asked["hr"] == chunks * BATCH * min(variants, times)


def test_views_of_every_variant_are_kept_and_not_too_many(
    made: Callable[..., Path], asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_of(made(3), batch=NUM_SAMPLES)  # a step is an epoch
    read(reader, range(3))
    taken = dict(asked)
    assert {name: asked[name] for name in reader.input_names} == dict.fromkeys(("lr", "lr1", "lr2"), NUM_SAMPLES)
    expected = read(reader, range(3, 9))[0].input
    assert asked == taken and sum(map(len, reader._views)) == 3 * NUM_SAMPLES
    monkeypatch.setattr(batches_room, "_MAX_VIEWS", 5)
    few = reader_of(made(3), batch=NUM_SAMPLES)
    assert (read(few, range(9))[0].input[3:] == expected).all() and sum(map(len, few._views)) == 5


@pytest.mark.parametrize("codec", ["npy", "png"])
def test_the_images_of_the_last_sample_hold_no_closed_shard_and_do_not_travel(
    made: Callable[..., Path], codec: str
) -> None:
    reader = reader_of(made(3, codec))
    read(reader, range(6))
    pickled = pickle.dumps(reader)
    assert not any(picture("hr", number).tobytes() in pickled for number in range(NUM_SAMPLES))
    maps = [weakref.ref(shard._map) for shard in reader._open.values()]
    assert len(maps) == 2 and all(each() is not None for each in maps)
    reader.close()
    assert [each() for each in maps] == [None, None]


@pytest.mark.parametrize(("variants", "looked_at"), [(1, {"hr"}), (3, {"hr", "lr", "lr1", "lr2"})])
def test_a_variant_that_is_not_in_memory_is_read_ahead_and_no_other(
    made: Callable[..., Path], variants: int, looked_at: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HR is there from the epoch before; a variant that is shown for the first time need not be."""
    looked: set[str] = set()
    ahead: list[tuple[int, str]] = []

    def in_memory(self: MappedShard, place: int, name: str, *rest: object) -> bool:
        looked.add(name)
        return name == "hr"

    monkeypatch.setattr(MappedShard, "in_memory", in_memory)
    monkeypatch.setattr(MappedShard, "read_ahead", lambda self, place, name, *rest: ahead.append((place, name)))
    reader = reader_of(made(variants))
    for step in range(24):
        ahead.clear()
        reader._cold_chunks = 0
        read(reader, range(step, step + 1))
        draws = reader.schedule.batch(step)
        places = [reader.schedule.shard_of(number)[1] for number in draws.numbers.tolist()]
        shown = [reader.input_names[variant] for variant in draws.variants(SEED, variants)]
        images = zip(places, shown, strict=True)
        assert ahead == [(place, name) for place, variant in images for name in ("hr", variant) if variants > 1]
    assert looked == looked_at
    ahead.clear()
    resident(reader, Rows(BATCH), 0, 1)
    names = ("hr", *reader.input_names)
    assert set(ahead) == set(product(range(max(SAMPLES_OF_SHARDS)), names))


@pytest.mark.parametrize(("input_name", "variants"), [("lr", 3), ("up", 1)])
def test_the_memory_that_is_said_is_the_memory_that_the_device_gives(
    made: Callable[..., Path], input_name: str, variants: int
) -> None:
    reader = reader_of(made(3), 1, input_name)
    images = ResidentBatches(reader, Rows(BATCH), 0, 1, CPU)._load()
    said = resident_bytes(reader.grid, NUM_SAMPLES, variants)
    assert sum(tensor.numel() * tensor.element_size() for tensor in images) == said
    assert said == NUM_SAMPLES * 3 * (32 * 32 + (3 * 16 * 16 if input_name == "lr" else 32 * 32))


# ---- damage


def spoil(members: dict[str, list[Any]], extension: str) -> None:
    """Other bytes, as many."""
    members[extension] = [bytes(sum(map(len, members[extension])))]


@pytest.mark.parametrize("codec", ["npy", "png"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_damaged_variant_is_replaced_by_that_of_the_next_sound_sample_from_any_source(
    codec: str, times: int, tmp_path: Path
) -> None:
    """The first and the second image of 4, the second of 5; all of 9; one of the last, whose next is the first."""
    bad = {(4, "lr1"), (4, "lr"), (5, "lr1"), (9, "hr"), (NUM_SAMPLES - 1, "lr2")}

    def edit(number: int, members: dict[str, list[Any]]) -> None:
        for name in (name for damaged, name in bad if damaged == number):
            spoil(members, f"{name}.{codec}")

    reader = reader_of(make_folder(tmp_path / "s", 3, codec, edit=edit), times)
    stands_in = {(4, 0): 5, (4, 1): 6, (5, 1): 6, (9, 0): 10, (9, 1): 10, (9, 2): 10, (NUM_SAMPLES - 1, 2): 0}
    seen: set[tuple[int, int]] = set()
    for first in range(0, 42, times):
        steps = range(first, first + times)
        patches, damaged = read(reader, steps)
        expected = []
        for row, step in product(range(BATCH), range(times)):
            draws = reader.schedule.batch(steps[step])
            number, variant = int(draws.numbers[row]), int(draws.variants(SEED, 3)[row])
            stand_in = stands_in.get((number, variant), number)
            passed_over = range(number, stand_in if stand_in >= number else NUM_SAMPLES)
            expected += [(step, row, sample) for sample in passed_over]
            seen |= {(number, variant)} if passed_over else set()
            assert (patches.hr[step, row, ..., 0] == stand_in).all()
            assert (patches.input[step, row, ..., 0] == stand_in).all()
            assert (patches.input[step, row, ..., 1] == variant).all()
        assert [(step, row, damage.number) for step, row, damage in damaged] == expected
    assert seen == stands_in.keys()
    rows = Rows(3, micro_batches=2)
    ring = list(WorkerBatches(reader, rows, 0, 42, 0, 2, CPU).started())
    device = resident(reader, rows, 0, 42)
    assert [batch.damaged for batch in device] == [batch.damaged for batch in ring]
    assert any(batch.damaged for batch in ring) and not all(batch.damaged for batch in ring)
    whole = loaded(reader, rows, 0, 42, 0)
    assert as_bytes(device) == whole
    assert loaded(reader, rows, 7, 42, 3) == whole[14:]


def test_a_variant_that_is_missing_is_damage_and_named(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "s", 3, edit=lambda number, members: members.pop("lr2.npy") if number == 16 else None
    )
    _, damaged = read(reader_of(folder, batch=NUM_SAMPLES), range(3))
    assert [damage for _, _, damage in damaged] == [DamagedSample(16, "train-000001.tar: sample 3 has no lr2.npy")]


def test_a_run_names_a_damaged_variant_in_its_journal_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(
        tmp_path / "s", 4, edit=lambda number, members: spoil(members, "lr3.npy") if number == 2 else None
    )
    words = ("--shards", folder, "--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 24)  # more than four epochs
    done = trainer(*words, "--run", "strict")
    reason = f"train-000000.tar: {sample_key('train', 0, 2)}.lr3.npy: expected 16x16x3 px, found damaged data"
    assert done.code == 1 and f"Error: 1 of 21 samples are damaged, more than 0.1%: {reason}" in done.err
    monkeypatch.setattr("trainer.training.loop._MAX_DAMAGED_SHARE", 1.0)
    done = trainer(*words, "--run", "r")
    assert done.code == 0, done.err
    assert done.err.count(f"Damaged sample replaced by another one: {reason}") == 1
    lines = [json.loads(line) for line in (tmp_path / "r" / "journal.jsonl").read_text().splitlines()]
    (noted,) = [line for line in lines if line["event"] == "damaged"]
    assert noted["reason"] == reason


def test_a_run_that_is_gone_on_with_ends_with_the_same_weights(made: Callable[..., Path], tmp_path: Path) -> None:
    words = ("--shards", made(3, "png"), "--out", tmp_path, *SMALL, "--patch-size", 16, "--epochs", 4, "--val-every", 5)
    for name in ("whole", "resident"):
        done = trainer(*words, "--run", name, *(["--resident"] if name == "resident" else []))
        assert done.code == 0, done.err
    _interrupted(tmp_path, words)
    found = [torch.load(tmp_path / run / "model.pth")["params"] for run in ("whole", "resident", "halted")]
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


def _interrupted(out: Path, words: tuple[object, ...]) -> None:
    """A run that ends with an error in its 8th step, after a validation, and is resumed."""
    real = Learner.step

    def step(self: Learner, index: int, batches: Any) -> torch.Tensor:
        if index == 7:
            raise MemoryError
        return real(self, index, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", step)
        assert trainer(*words, "--run", "halted").code == 2
    done = trainer("--out", out, "--run", "halted", "--resume")
    assert done.code == 0 and "resumed at step 5" in done.err


# ---- without `up`, and what is said


def test_shards_without_up_are_refused_where_up_is_needed_with_what_to_do(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    bare, full = made(3, has_up=False), made(3)
    words = ("--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 1)
    done = trainer("--shards", bare, *words, "--input", "up")
    assert done.code == 2
    advice = "generate without --no-up, or pass --input lr"
    assert f"Error: --input up: {bare} has no upsampled images; {advice}" in done.err
    assert trainer("--shards", bare, *words, "--run", "lr").code == 0
    assert trainer("--shards", full, *words, "--run", "up", "--input", "up").code == 0
    for run, folder, code in (("lr", bare, 0), ("up", full, 0), ("up", bare, 2)):
        weights = tmp_path / run / "model.pth"
        done = trainer("evaluate", "--weights", weights, "--shards", folder, "--device", "cpu")
        assert done.code == code, done.err
    advice = "generate shards without --no-up, or evaluate photos: --hr PHOTOS --scale 2"
    assert f"Error: {weights} takes upsampled images, but {bare} has none; {advice}" in done.err


def test_the_first_variant_is_the_one_that_is_judged(made: Callable[..., Path], tmp_path: Path) -> None:
    words = ("--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 1, "--run", "r")
    assert trainer("--shards", made(3), *words).code == 0
    for split, count in (("train", NUM_SAMPLES), ("val", NUM_VAL)):
        found = []
        for variants in (1, 3):
            options = ("--shards", made(variants), "--split", split, "--device", "cpu", "--json")
            done = trainer("evaluate", "--weights", tmp_path / "r" / "model.pth", *options)
            assert done.code == 0, done.err
            found.append(json.loads(done.out)["images"])
        assert found[0] == found[1] and len(found[0]) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variants": 1, "version": 1}, "2x by cubic, npy"),
        ({"variants": 1}, "2x by cubic, npy"),
        ({"variants": 1, "degradation": {"name": "mild", "steps": []}}, "2x by mild, npy"),
        ({"variants": 8, "degradation": {"name": "realesrgan", "steps": []}}, "2x by realesrgan, 8 variants, npy"),
    ],
)
def test_a_run_says_how_its_data_was_degraded(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "s", **options)
    config = TrainConfig(folder, model="ultra_lite", patch_size=PATCH_PX, device="cpu", resident=True)
    first, *_, device, _ = describe(checked_plan(config, open_shards(folder))).splitlines()
    assert first == f"Data     {folder}: {NUM_SAMPLES} train, {NUM_VAL} val samples, HR 32 px, {said}"
    num_bytes = resident_bytes(PatchGrid(32, 2, 16, 2), NUM_SAMPLES, options["variants"])
    assert f"all samples in device memory ({format_bytes(num_bytes)})" in device


def test_resident_samples_that_do_not_fit_count_their_variants(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Memory for one variant, with some to spare for training, is not enough for eight."""
    needed = resident_bytes(PatchGrid(32, 2, 16, 2), NUM_SAMPLES, 1)
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 1.3 * needed)
    words = ("--out", tmp_path, *SMALL, "--patch-size", 16, "--steps", 1, "--resident")
    assert trainer("--shards", made(1), *words).code == 0
    done = trainer("--shards", made(8), *words)
    assert done.code == 2 and "--resident: the images of 21 samples take " in done.err
