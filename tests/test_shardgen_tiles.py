"""Photos with many tiles: plans respect the limit of 100,000 samples per shard."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import contract_files, generate, make_photos, run_cli
from hypothesis import given
from hypothesis import strategies as st
from odd_photos import raw_png
from test_shardgen_plan import config, listing

from shardgen.planning import tile_counts
from shardgen.planning.plan import plan_shards
from shardgen.planning.sources import Photo
from srshards.errors import UsageError
from srshards.format import load_json

TILES = ("-s", 4, "--fit", "tile", "--no-up")


def black_png(path: Path, height: int, width: int) -> None:
    """Write a black photo of any size in a few kilobytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw_png((height, width), 1, 0, bytes(height * (1 + (width + 7) // 8))))


def samples_of_shards(folder: Path) -> dict[str, int]:
    return {record["name"]: record["samples"] for record in load_json(folder / "manifest.json")["shards"]}


@pytest.fixture()
def room_for_40(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit shards to 40 samples, so that a test need not generate 100,000."""
    for module in ("srshards.format", "shardgen.planning.plan", "shardgen.planning.tile_counts", "shardgen.shard.job"):
        monkeypatch.setattr(f"{module}.MAX_SAMPLES_PER_SHARD", 40)


def test_number_of_shards_follows_the_number_of_tiles(tmp_path: Path) -> None:
    """Each photo has 188 x 125 = 23,500 tiles, so a shard has room for four."""
    for number in range(8):
        black_png(tmp_path / "in" / f"p{number}.png", 4000, 6000)
    arguments = ("generate", "-i", tmp_path / "in", "-o", tmp_path / "out", *TILES, "--size", 32, "--dry-run")
    result = run_cli(*arguments)
    assert result.returncode == 0 and "3 shards to build (about 188,000 samples)" in result.stdout, result.stderr
    assert "2 shards to build" in run_cli(*arguments, "--sample", 0.5).stdout


def test_every_tile_is_generated_when_a_sample_grows(tmp_path: Path, room_for_40: None) -> None:
    photos = make_photos(tmp_path / "in", 20, (96, 160))  # 15 tiles each: two fit into a shard
    generate(photos, tmp_path / "all", *TILES, "--size", 32)
    samples = samples_of_shards(tmp_path / "all" / "scale_4x")
    assert sum(samples.values()) == 20 * 15 and max(samples.values()) == 30
    generate(photos, tmp_path / "parts", *TILES, "--size", 32, "--sample", 0.4)
    few = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.tar")}
    generate(photos, tmp_path / "parts", *TILES, "--size", 32)
    assert contract_files(tmp_path / "parts") == contract_files(tmp_path / "all")
    assert sum(path.stat().st_mtime_ns == before for path, before in few.items()) >= len(few) - 2
    assert run_cli("verify", tmp_path / "all").returncode == 0


def test_photo_with_too_many_tiles_is_an_error_at_the_start(tmp_path: Path) -> None:
    black_png(tmp_path / "in" / "wide.png", 400, 400)
    arguments = ("-i", tmp_path / "in", "-o", tmp_path / "out", *TILES, "--size", 16, "--tile-step", 1, "--auto")
    for larger in (("--dry-run",), ("--workers", 0)):
        result = run_cli("generate", *arguments, *larger)
        assert result.returncode == 2 and (
            "wide.png has 148,225 tiles, but a shard can hold at most 100,000 samples; pass a larger --tile-step or "
            "--size, or exclude the photo with --exclude" in result.stderr
        ), result.stderr
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_photo_with_more_tiles_than_planned_is_a_failure(
    tmp_path: Path, room_for_40: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the estimate was wrong or the photo has changed since."""
    photos = make_photos(tmp_path / "in", 3, (96, 160))
    monkeypatch.setattr(tile_counts.Tiles, "counts", lambda self, photos: None)
    result = generate(photos, tmp_path / "out", *TILES, "--size", 32, "--val-fraction", 0)
    (failure,) = load_json(tmp_path / "out" / "scale_4x" / "manifest.json")["failures"]
    reason = "has 15 tiles, but its shard can hold only 10 more; pass a larger --tile-step or --size"
    assert failure["reason"] == reason and reason in result.stderr and "1 of 3 photos failed" in result.stderr
    assert samples_of_shards(tmp_path / "out" / "scale_4x") == {"train-000000": 30}
    assert run_cli("verify", tmp_path / "out").returncode == 0


def test_headers_are_read_only_for_shards_that_may_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_photos(tmp_path / "in", 40, (96, 96), classes=1)
    black_png(tmp_path / "in" / "class0" / "flat.png", 96, 96)
    monkeypatch.setattr(tile_counts, "_NUM_INSPECTED", 4)
    counted: list[Sequence[Photo]] = []
    count = tile_counts._count
    monkeypatch.setattr(tile_counts, "_count", lambda subset, *rest: counted.append(subset) or count(subset, *rest))
    arguments = ("generate", "-i", photos, "-o", tmp_path / "out", *TILES, "--size", 16, "--dry-run")
    assert run_cli(*arguments).returncode == 0
    assert [len(subset) for subset in counted] == [4], "no shard is near the limit"
    counted.clear()
    monkeypatch.setattr("shardgen.planning.tile_counts.MAX_SAMPLES_PER_SHARD", 200)  # two photos always fit
    assert run_cli(*arguments).returncode == 0
    assert len(counted) > 1 and all(len(subset) > 1 for subset in counted)


def test_photos_with_many_bytes_are_counted_exactly(tmp_path: Path) -> None:
    """The estimate is from small photos and does not apply to one that is forty times as large."""
    estimate = tile_counts.Tiles(config(fit="tile"), lambda photos: [None] * len(photos), 10.0, 10 / 1000)
    assert estimate.counts([Photo("a.jpg", 1000, 0)] * 2000) is None
    assert estimate.counts([Photo("a.jpg", 3_000_000, 0)]) == [0], "the file does not exist"


def counts_of(photos: Sequence[Photo]) -> list[int]:
    return [photo.size % 7 for photo in photos]


@given(count=st.integers(1, 300), seed=st.integers(0, 3), limit=st.integers(6, 60), share=st.floats(0.05, 1))
def test_no_planned_shard_overflows(count: int, seed: int, limit: int, share: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", limit)
        cfg = config(seed=seed, fit="tile", sample=share, shard_bytes=60_000_000)
        uncounted = plan_shards(listing(count), cfg, 3.0)
        counted_plan = plan_shards(listing(count), cfg, 3.0, counts_of)
        larger = plan_shards(listing(count), config(seed=seed, fit="tile", shard_bytes=60_000_000), 3.0, counts_of)
    assert sorted(photo for shard in counted_plan for photo in shard.photos) == sorted(
        photo for shard in uncounted for photo in shard.photos
    )
    assert [shard.name for shard in counted_plan] == sorted({shard.name for shard in counted_plan})
    assert all(sum(counts_of(shard.photos)) <= limit for shard in counted_plan)
    fitting = [shard for shard in uncounted if sum(counts_of(shard.photos)) <= limit]
    assert all(shard in counted_plan for shard in fitting), "a shard below the limit has changed"
    large = {shard.name: shard.photos for shard in larger}
    assert sum(large.get(shard.name) != shard.photos for shard in counted_plan) <= 2, "not only the last shards"


@given(count=st.integers(2, 200), seed=st.integers(0, 3), limit=st.integers(6, 30), added=st.integers(0, 199))
def test_added_photo_changes_or_splits_one_shard(count: int, seed: int, limit: int, added: int) -> None:
    """Even if a range has too many samples: it is split by position, not by what fits."""
    photos = listing(count)
    without = [photo for number, photo in enumerate(photos) if number != added % count]
    cfg = config(seed=seed, fit="tile", val_fraction=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", limit)
        patch.setattr("shardgen.planning.plan._num_bits", lambda *numbers: 2)
        plans = [plan_shards(subset, cfg, 3.0, counts_of) for subset in (without, photos)]
    before, after = ({shard.name: shard.photos for shard in plan} for plan in plans)
    changed = {name for name in before if after.get(name) != before[name]}
    assert len(changed) <= 1


def test_photos_too_close_to_split_get_separate_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", 6)
    monkeypatch.setattr("shardgen.planning.plan._MAX_BITS", 5)
    shards = plan_shards(listing(100), config(fit="tile", val_fraction=0.0), 1.0, lambda photos: [6] * len(photos))
    assert [len(shard.photos) for shard in shards] == [1] * 100
    assert len({shard.name for shard in shards}) == 100 and max(shard.number for shard in shards) < 32 + 100


def test_more_shards_than_names_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardgen.planning.plan.MAX_SHARDS", 16)
    monkeypatch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", 6)
    with pytest.raises(UsageError, match=r"more than the maximum of 16 shards; pass a larger --tile-step or --size"):
        plan_shards(listing(200), config(fit="tile"), 6.0, lambda photos: [6] * len(photos))
