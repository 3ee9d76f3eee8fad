"""Photos of many tiles: a shard holds 100,000 samples, and what does not fit is planned for, or refused by name."""

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
    """A photo of any size in a few kilobytes: a grey level takes a bit, and all are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw_png((height, width), 1, 0, bytes(height * (1 + (width + 7) // 8))))


def samples_of_shards(folder: Path) -> dict[str, int]:
    return {record["name"]: record["samples"] for record in load_json(folder / "manifest.json")["shards"]}


@pytest.fixture()
def room_for_40(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 40 samples at most, so that a test need not make 100,000."""
    for module in ("srshards.format", "shardgen.planning.plan", "shardgen.planning.tile_counts", "shardgen.shard.job"):
        monkeypatch.setattr(f"{module}.MAX_SAMPLES_PER_SHARD", 40)


def test_eight_large_photos_take_as_many_shards_as_their_tiles_need(tmp_path: Path) -> None:
    """Of 188 x 125 = 23,500 tiles each, so that four fit into a shard."""
    for number in range(8):
        black_png(tmp_path / "in" / f"p{number}.png", 4000, 6000)
    words = ("generate", "-i", tmp_path / "in", "-o", tmp_path / "out", *TILES, "--size", 32, "--dry-run")
    done = run_cli(*words)
    assert done.returncode == 0 and "3 shards to build (about 188,000 samples)" in done.stdout, done.stderr
    assert "2 shards to build" in run_cli(*words, "--sample", 0.5).stdout


def test_every_tile_is_made_whatever_the_workers_and_the_sample(tmp_path: Path, room_for_40: None) -> None:
    photos = make_photos(tmp_path / "in", 20, (96, 160))  # 15 tiles each, so two fit
    generate(photos, tmp_path / "all", *TILES, "--size", 32)
    samples = samples_of_shards(tmp_path / "all" / "scale_4x")
    assert sum(samples.values()) == 20 * 15 and max(samples.values()) == 30
    generate(photos, tmp_path / "parts", *TILES, "--size", 32, "--sample", 0.4)
    few = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.tar")}
    generate(photos, tmp_path / "parts", *TILES, "--size", 32)
    assert contract_files(tmp_path / "parts") == contract_files(tmp_path / "all")
    assert sum(path.stat().st_mtime_ns == before for path, before in few.items()) >= len(few) - 2
    assert run_cli("verify", tmp_path / "all").returncode == 0


def test_a_photo_of_more_tiles_than_a_shard_holds_is_refused_before_the_work(tmp_path: Path) -> None:
    black_png(tmp_path / "in" / "wide.png", 400, 400)
    words = ("-i", tmp_path / "in", "-o", tmp_path / "out", *TILES, "--size", 16, "--tile-step", 1, "--auto")
    for more in (("--dry-run",), ("--workers", 0)):
        done = run_cli("generate", *words, *more)
        assert done.returncode == 2 and (
            "wide.png has 148,225 tiles, but a shard can hold at most 100,000 samples: pass a larger --tile-step or "
            "--size, or exclude the photo with --exclude" in done.stderr
        ), done.stderr
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_a_photo_that_outgrew_its_shard_is_a_named_failure(
    tmp_path: Path, room_for_40: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate was far off, or the photo is another one since it was counted."""
    photos = make_photos(tmp_path / "in", 3, (96, 160))
    monkeypatch.setattr(tile_counts.Tiles, "counts", lambda self, photos: None)
    done = generate(photos, tmp_path / "out", *TILES, "--size", 32, "--val-fraction", 0)
    (failure,) = load_json(tmp_path / "out" / "scale_4x" / "manifest.json")["failures"]
    reason = "has 15 tiles, but its shard has room for 10 more: pass a larger --tile-step or --size"
    assert failure["reason"] == reason and reason in done.stderr and "1 of 3 photos failed" in done.stderr
    assert samples_of_shards(tmp_path / "out" / "scale_4x") == {"train-000000": 30}
    assert run_cli("verify", tmp_path / "out").returncode == 0


def test_headers_are_read_where_a_shard_may_overflow_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "in", 40, (96, 96), classes=1)
    black_png(tmp_path / "in" / "class0" / "flat.png", 96, 96)
    monkeypatch.setattr(tile_counts, "_NUM_INSPECTED", 4)
    counted: list[Sequence[Photo]] = []
    count = tile_counts._count
    monkeypatch.setattr(tile_counts, "_count", lambda some, config: counted.append(some) or count(some, config))
    words = ("generate", "-i", photos, "-o", tmp_path / "out", *TILES, "--size", 16, "--dry-run")
    assert run_cli(*words).returncode == 0
    assert [len(some) for some in counted] == [4], "no shard is near 100,000 tiles"
    counted.clear()
    monkeypatch.setattr("shardgen.planning.tile_counts.MAX_SAMPLES_PER_SHARD", 200)  # a shard of two photos is safe
    assert run_cli(*words).returncode == 0
    assert len(counted) > 1 and all(len(some) > 1 for some in counted)


def test_what_a_panorama_holds_is_seen_by_its_bytes(tmp_path: Path) -> None:
    """The photos that were looked at are small: their mean says nothing of one that is forty times as large."""
    estimate = tile_counts.Tiles(config(fit="tile"), 10.0, 10 / 1000)
    assert estimate.counts([Photo("a.jpg", 1000, 0)] * 2000) is None
    assert estimate.counts([Photo("a.jpg", 3_000_000, 0)]) == [0], "there is none"


def counts_of(photos: Sequence[Photo]) -> list[int]:
    return [photo.size % 7 for photo in photos]


@given(count=st.integers(1, 300), seed=st.integers(0, 3), limit=st.integers(6, 60), share=st.floats(0.05, 1))
def test_no_shard_of_a_plan_overflows(count: int, seed: int, limit: int, share: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", limit)
        cfg = config(seed=seed, fit="tile", sample=share, shard_bytes=60_000_000)
        whole = plan_shards(listing(count), cfg, 3.0)
        parts = plan_shards(listing(count), cfg, 3.0, counts_of)
        more = plan_shards(listing(count), config(seed=seed, fit="tile", shard_bytes=60_000_000), 3.0, counts_of)
    assert sorted(photo for shard in parts for photo in shard.photos) == sorted(
        photo for shard in whole for photo in shard.photos
    )
    assert [shard.name for shard in parts] == sorted({shard.name for shard in parts})
    assert all(sum(counts_of(shard.photos)) <= limit for shard in parts)
    fitting = [shard for shard in whole if sum(counts_of(shard.photos)) <= limit]
    assert all(shard in parts for shard in fitting), "a shard that fitted is another one now"
    large = {shard.name: shard.photos for shard in more}
    assert sum(large.get(shard.name) != shard.photos for shard in parts) <= 2, "more than the last one of each split"


@given(count=st.integers(2, 200), seed=st.integers(0, 3), limit=st.integers(6, 30), added=st.integers(0, 199))
def test_a_photo_that_is_added_changes_one_shard_or_halves_it(count: int, seed: int, limit: int, added: int) -> None:
    """Also where a stretch has too many samples, which is cut by places and not by what happens to fit."""
    photos = listing(count)
    without = [photo for number, photo in enumerate(photos) if number != added % count]
    cfg = config(seed=seed, fit="tile", val_fraction=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", limit)
        patch.setattr("shardgen.planning.plan._num_bits", lambda *numbers: 2)
        before, after = (
            {shard.name: shard.photos for shard in plan_shards(some, cfg, 3.0, counts_of)} for some in (without, photos)
        )
    changed = {name for name in before if after.get(name) != before[name]}
    assert len(changed) <= 1


def test_photos_that_lie_too_close_together_get_shards_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", 6)
    monkeypatch.setattr("shardgen.planning.plan._MAX_BITS", 5)
    shards = plan_shards(listing(100), config(fit="tile", val_fraction=0.0), 1.0, lambda photos: [6] * len(photos))
    assert [len(shard.photos) for shard in shards] == [1] * 100
    assert len({shard.name for shard in shards}) == 100 and max(shard.number for shard in shards) < 32 + 100


def test_more_shards_than_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardgen.planning.plan.MAX_SHARDS", 16)
    monkeypatch.setattr("shardgen.planning.plan.MAX_SAMPLES_PER_SHARD", 6)
    with pytest.raises(UsageError, match=r"more than 16 shards .* pass a larger --tile-step or --size"):
        plan_shards(listing(200), config(fit="tile"), 6.0, lambda photos: [6] * len(photos))
