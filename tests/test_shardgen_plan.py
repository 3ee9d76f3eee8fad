"""Properties of shard plans."""

import os
from collections import Counter
from dataclasses import replace
from hashlib import blake2b
from math import ceil, floor, log2
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardgen.planning.config import Config
from shardgen.planning.plan import ShardPlan, expected_sample_bytes, order_photos, plan_shards, take_sample
from shardgen.planning.sources import Photo
from srshards.errors import UsageError


def listing(count: int, salt: str = "") -> list[Photo]:
    return [Photo(f"class{n % 7}/{salt}photo {n}.jpg", 1000 + n, n) for n in range(count)]


def config(**changes: object) -> Config:
    return Config(input=Path("in"), output=Path("out"), **changes)  # type: ignore[arg-type]


def by_name(shards: list[ShardPlan]) -> dict[str, set[Photo]]:
    return {shard.name: set(shard.photos) for shard in shards}


configs = st.builds(
    config,
    seed=st.integers(0, 5),
    sample=st.floats(0.001, 1),
    val_fraction=st.floats(0, 0.9),
    shard_bytes=st.integers(10**6, 10**8),
    scales=st.lists(st.integers(2, 8), min_size=1).map(tuple),
)


def plan_by_definition(photos: list[Photo], cfg: Config, samples_per_photo: float) -> list[ShardPlan]:
    """The plan by its definition, with Python integers and one object per photo."""
    val_below = int(cfg.val_fraction * 2**64)
    drawn = []
    for photo in photos:
        digest = blake2b(b"%d\0" % cfg.seed + os.fsencode(photo.path), digest_size=16).digest()
        position, draw = (int.from_bytes(half, "big") for half in (digest[:8], digest[8:]))
        drawn.append([position, draw, photo, "val" if draw < val_below else "train"])
    drawn.sort()
    if len(drawn) > 1 and val_below:
        drawn[0][3] = "val"
        if all(split == "val" for *_, split in drawn):
            drawn[-1][3] = "train"
    elif len(drawn) == 1:
        drawn[0][3] = "train"
    count = max(1, round(len(drawn) * cfg.sample))
    while count < len(drawn) and {d[3] for d in drawn} != {d[3] for d in drawn[:count]}:
        count += 1
    shards = []
    for split in ("train", "val"):
        of_split = sum(d[3] == split for d in drawn)
        samples = of_split * samples_per_photo
        wanted = max(samples * expected_sample_bytes(cfg, 2) / cfg.shard_bytes, samples / 20_000)
        num_shards = 2 ** min(ceil(log2(max(wanted, 1))), floor(log2(max(of_split / 8, 1))))
        groups: dict[int, list[Photo]] = {}
        for position, _, photo, photos_split in drawn[:count]:
            if photos_split == split:
                groups.setdefault(position * num_shards // 2**64, []).append(photo)
        shards += [ShardPlan(split, number, tuple(group)) for number, group in groups.items()]
    return shards


@settings(max_examples=150)
@given(count=st.integers(1, 600), cfg=configs, salt=st.text(max_size=3), samples_per_photo=st.floats(0.01, 40))
def test_plan_matches_its_definition(count: int, cfg: Config, salt: str, samples_per_photo: float) -> None:
    photos = listing(count, salt)
    assert plan_shards(photos, cfg, samples_per_photo) == plan_by_definition(photos, cfg, samples_per_photo)


@given(count=st.integers(1, 300), cfg=configs)
def test_every_sampled_photo_is_in_exactly_one_shard(count: int, cfg: Config) -> None:
    shards = plan_shards(listing(count), cfg)
    planned = [photo for shard in shards for photo in shard.photos]
    assert len(planned) == len(set(planned)) == len(take_sample(order_photos(listing(count), cfg), cfg))
    assert all(shard.photos for shard in shards)
    assert len({shard.name for shard in shards}) == len(shards)


@given(count=st.integers(1, 100), cfg=configs, random=st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_listing_order(count: int, cfg: Config, random) -> None:
    shuffled = listing(count)
    random.shuffle(shuffled)
    assert plan_shards(shuffled, cfg) == plan_shards(listing(count), cfg)


@given(count=st.integers(2, 300), cfg=configs)
def test_small_sample_is_a_prefix_of_a_large_one(count: int, cfg: Config) -> None:
    few, many = (plan_shards(listing(count), replace(cfg, sample=share)) for share in (cfg.sample / 3, cfg.sample))
    large = {shard.name: shard.photos for shard in many}
    for shard in few:
        assert large[shard.name][: len(shard.photos)] == shard.photos
    cut = [shard for shard in few if large[shard.name] != shard.photos]
    assert len(cut) <= 2, "at most the last shard of each split is unfinished"


@given(count=st.integers(2, 300), cfg=configs)
def test_photo_keeps_its_split_in_every_sample(count: int, cfg: Config) -> None:
    order = order_photos(listing(count), cfg)
    whole = dict(zip(order.photos(), order.in_val.tolist(), strict=True))
    for shard in plan_shards(listing(count), cfg):
        assert {whole[photo] for photo in shard.photos} == {shard.split == "val"}


@given(count=st.integers(2, 300), cfg=configs)
def test_both_splits_are_nonempty_for_two_or_more_photos(count: int, cfg: Config) -> None:
    splits = {shard.split for shard in plan_shards(listing(count), cfg)}
    assert splits == ({"train", "val"} if cfg.val_fraction > 2**-60 else {"train"})


def test_single_photo_is_in_train() -> None:
    assert [shard.split for shard in plan_shards(listing(1), config())] == ["train"]


@settings(max_examples=40)
@given(count=st.integers(600, 900), seed=st.integers(0, 3), change=st.integers(0, 599))
def test_added_or_removed_photo_changes_one_shard(count: int, seed: int, change: int) -> None:
    cfg = config(seed=seed, shard_bytes=60_000_000)  # 32 shards for 600 to 900 photos, and one for validation
    photos = sorted(listing(count), key=lambda photo: photo.path)
    removed = photos[:change] + photos[change + 1 :]
    before, after = by_name(plan_shards(photos, cfg)), by_name(plan_shards(removed, cfg))
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    # The first photo is always in val, so without it the next one may change its split.
    is_first = photos[change] == order_photos(photos, cfg).photos()[0]
    assert 1 <= len(changed) <= (2 if is_first else 1)


def test_changed_photo_changes_one_digest() -> None:
    photos = listing(200)
    touched = [photo._replace(mtime_ns=7**9) if n == 5 else photo for n, photo in enumerate(photos)]
    cfg = config(shard_bytes=10**7)
    before = {s.name: s.photos_digest for s in plan_shards(photos, cfg)}
    after = {s.name: s.photos_digest for s in plan_shards(touched, cfg)}
    assert len(before) > 8 and sum(before[name] != after[name] for name in before) == 1


@pytest.mark.parametrize("count", [500, 3_000, 20_000])
def test_mean_shard_size_is_between_half_and_all_of_shard_bytes(count: int) -> None:
    cfg = config(shard_bytes=256_000_000)
    sizes = [
        len(shard.photos) * expected_sample_bytes(cfg, 4) for shard in plan_shards(listing(count), cfg)
        if shard.split == "train"
    ]  # fmt: skip
    mean = sum(sizes) / len(sizes)
    assert 0.5 * 256e6 * 0.95 <= mean <= 256e6
    assert max(sizes) < 1.5 * 256e6


def test_seed_changes_the_order() -> None:
    orders = {order_photos(listing(50), config(seed=seed)).photos() for seed in range(5)}
    assert len(orders) == 5


def test_shards_mix_the_classes() -> None:
    for shard in plan_shards(listing(4_000), config()):
        if shard.split == "train":
            classes = Counter(photo.class_name for photo in shard.photos)
            shares = [count / len(shard.photos) for count in classes.values()]
            assert len(classes) == 7 and min(shares) > 0.03 and max(shares) < 0.3


def test_val_fraction_is_met() -> None:
    order = order_photos(listing(20_000), config(val_fraction=0.02))
    assert 0.016 < order.in_val.mean() < 0.024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": ()}, "--scales: expected one or more of 2 to 8"),
        ({"scales": (9,)}, "scale 9: expected an integer from 2 to 8"),
        ({"fit": "crop"}, "--fit 'crop': expected one of cover, tile, stretch"),
        ({"method": "magic"}, "--method 'magic': expected one of nearest, linear, cubic, area, lanczos"),
        ({"codec": "gif"}, "--codec 'gif': expected one of npy, png, webp, tlc"),
        ({"shard_bytes": 10**400}, "--shard-bytes: expected at most 1000 PB, e.g. 256MB"),
    ],
)
def test_invalid_settings_are_rejected(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        config(**change)
