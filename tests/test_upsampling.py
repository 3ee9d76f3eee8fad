"""`up` of shards without it: upsampled crops equal those of the complete image, and batches those of stored images."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import SMALL, generate, make_photos, trainer
from hypothesis import given
from hypothesis import strategies as st

import srshards
from shardgen.shard.triplet import make_triplet
from srshards.format import MANIFEST_NAME
from srshards.imaging.pixels import Pixels
from srshards.imaging.upsampling import UPSAMPLING_METHODS, upsample, upsample_part
from srshards.sampling.patches import Cut, PatchGrid

PATCH_PX = 24
SCALES = range(2, 9)
NO_METHOD = "manifest.json does not name the resampling method (settings.method); generate the shards again"


@pytest.fixture(params=["with IPP", "without IPP"])
def code_path(request: pytest.FixtureRequest) -> Iterator[None]:
    """OpenCV resizes with Intel's library where that has the kernel, and otherwise with code of its own."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(request.param == "with IPP")
    yield
    cv2.ipp.setUseIPP(before)


def image(height: int, width: int, seed: int = 0) -> Pixels:
    """Return an image whose channels are noise, noise of black and white, and a checkerboard."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    noise = rng.integers(0, 256, (height, width))
    return np.stack([noise, 255 * rng.integers(0, 2, (height, width)), 255 * ((x + y) % 2)], axis=2).astype(np.uint8)


def crop_differs(lr: Pixels, whole: Pixels, top: int, left: int, size: int, scale: int, method: str) -> bool:
    part = upsample_part(lr, top, left, size, scale, method)
    edge = size * scale
    crop = part.pixels[part.top : part.top + edge, part.left : part.left + edge]
    return not np.array_equal(crop, whole[top * scale :, left * scale :][:edge, :edge])


# ---- crops


@pytest.mark.usefixtures("code_path")
@pytest.mark.parametrize("method", UPSAMPLING_METHODS)
@pytest.mark.parametrize("scale", SCALES)
def test_crops_at_all_positions_of_an_image(scale: int, method: str) -> None:
    """The positions along one axis do not depend on those along the other."""
    lr, size = image(64, 64), 12
    whole = upsample(lr, scale, method)
    last = 64 - size
    ends = (0, 1, last)
    for top, left in {(one, other) for one in range(last + 1) for other in ends}:
        assert not crop_differs(lr, whole, top, left, size, scale, method), (top, left)
        assert not crop_differs(lr, whole, left, top, size, scale, method), (left, top)


@pytest.mark.usefixtures("code_path")
@pytest.mark.parametrize("scale", [3, 5, 6, 7])
def test_crops_far_from_the_origin(scale: int) -> None:
    """Where float32 coordinates are inexact, up to the positions where coefficients differ, and beyond."""
    for width in (250, 510, 1000):
        for method in ("linear", "cubic", "lanczos"):
            for lr in (image(9, width), image(width, 9)):
                whole = upsample(lr, scale, method)
                for far in range(width - 45, width - 8, 3):
                    top, left = (0, far) if width == lr.shape[1] else (far, 0)
                    assert not crop_differs(lr, whole, top, left, 8, scale, method), (lr.shape, far, method)


@pytest.mark.usefixtures("code_path")
@pytest.mark.parametrize("scale", [3, 5, 7])
def test_crops_at_the_right_border(scale: int) -> None:
    """The last values of rows that do not fill a vector register, which OpenCV's own cubic rounds differently."""
    size, rng = 60, np.random.default_rng(0)
    for width in range(size + 8, size + 24):
        lr = rng.integers(0, 256, (size, width, 3), np.uint8)
        assert not crop_differs(lr, upsample(lr, scale, "cubic"), 0, width - size, size, scale, "cubic"), width


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    st.sampled_from(SCALES),
    st.sampled_from(UPSAMPLING_METHODS),
    st.booleans(),
)
def test_crops_of_images_of_all_sizes(
    shape: tuple[int, int], place: tuple[float, float, float], scale: int, method: str, ipp: bool
) -> None:
    """Also of images, and at borders, that are smaller than a kernel."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(ipp)
    try:
        lr = image(*shape)
        size = 1 + round(place[2] * (min(shape) - 1))
        top, left = (round(share * (edge - size)) for share, edge in zip(place, shape, strict=False))
        assert not crop_differs(lr, upsample(lr, scale, method), top, left, size, scale, method)
    finally:
        cv2.ipp.setUseIPP(before)


@pytest.mark.parametrize("method", UPSAMPLING_METHODS)
def test_a_part_is_much_smaller_than_the_image(method: str) -> None:
    part = upsample_part(image(128, 128), 40, 40, 48, 4, method)
    assert max(part.pixels.shape) <= 4 * (48 + 2 * 6)


def test_the_generator_upsamples_by_the_same_function() -> None:
    for method in UPSAMPLING_METHODS:
        triplet = make_triplet(image(48, 48), 3, method)
        assert np.array_equal(triplet.up, upsample(triplet.lrs[0], 3, method))


def test_the_margin_of_a_crop_is_read_ahead() -> None:
    grid = PatchGrid(hr=64, scale=2, patch=16, input_scale=1, up_method="lanczos")
    read: Pixels = np.zeros((32, 32, 3), np.uint8)
    for top in range(25):
        first, last = grid.stored_extent(Cut(top, 0, 0))
        read[:] = 0
        read[round(first * 32) : round(last * 32)] = 255
        # White where all that it is made from is white.
        assert not crop_differs(read, np.full((64, 64, 3), 255, np.uint8), top, 0, 8, 2, "lanczos"), top
        assert last - first <= 16 / 32
    assert grid.stored_extent(Cut(10, 0, 0)) == (6 / 32, 22 / 32)
    stored = PatchGrid(hr=64, scale=2, patch=16, input_scale=1)
    assert stored.stored_extent(Cut(10, 0, 0)) == stored.vertical_extent(Cut(10, 0, 0)) == (10 / 32, 18 / 32)


# ---- shards with `up` and without it, of the same photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), 14)


Pair = tuple[srshards.Shards, srshards.Shards]


@pytest.fixture(scope="module")
def make_pair(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """A cached factory of two sets of shards, with and without `up`. Tests must not modify them."""
    known: dict[tuple[Any, ...], Pair] = {}

    def make(scale: int, method: str, codec: str = "npy") -> Pair:
        if (scale, method, codec) not in known:
            root = tmp_path_factory.mktemp("sets")
            args = ("-s", scale, "--method", method, "--codec", codec, "--val-fraction", 0.15)
            generate(photos, root / "with", *args)
            generate(photos, root / "without", *args, "--no-up")
            with_up, without = (srshards.open(root / name / f"scale_{scale}x") for name in ("with", "without"))
            assert with_up.manifest.has_up and not without.manifest.has_up
            known[scale, method, codec] = (with_up, without)
        return known[scale, method, codec]

    return make


SETS = [(3, "cubic", "npy"), (4, "lanczos", "png"), (2, "area", "npy"), (4, "matlab", "npy")]


def batches(shards: srshards.Shards, **options: Any) -> list[tuple[bytes, bytes]]:
    """Return the bytes of three epochs."""
    arguments: dict[str, Any] = {"input": "up", "workers": 0, "seed": 3, **options}
    with srshards.PatchLoader(shards, PATCH_PX, 4, **arguments) as loader:
        found = []
        for _ in range(3):
            for batch in loader:
                assert batch.input.shape == (4, PATCH_PX, PATCH_PX, 3) and not batch.damaged
                found.append((batch.hr.numpy().tobytes(), batch.input.numpy().tobytes()))
    return found


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"resident": True}, {"patches_per_sample": 3}])
@pytest.mark.parametrize("which", SETS)
def test_batches_are_those_of_shards_with_up(
    which: tuple[int, str, str], options: dict[str, Any], make_pair: Callable[..., Pair]
) -> None:
    with_up, without = make_pair(*which)
    expected = batches(with_up, patches_per_sample=options.get("patches_per_sample", 1))
    assert len(set(expected)) == len(expected) > 6
    assert batches(without, **options) == expected


def test_resident_samples_take_the_memory_of_upsampled_ones(make_pair: Callable[..., Pair]) -> None:
    loaders = [srshards.PatchLoader(shards, PATCH_PX, 4, input="up", resident=True) for shards in make_pair(*SETS[0])]
    assert loaders[0].memory_bytes == loaders[1].memory_bytes


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("which", SETS)
def test_items_and_samples_are_those_of_shards_with_up(
    which: tuple[int, str, str], split: Any, make_pair: Callable[..., Pair]
) -> None:
    with_up, without = make_pair(*which)
    for name in ("dataset", "pipeline"):
        items = []
        for shards in (with_up, without):
            if name == "dataset":
                dataset = srshards.PatchDataset(shards, PATCH_PX, input="up", split=split)
                pairs: Any = (dataset[number] for number in range(len(dataset)))
            else:
                pairs = srshards.webdataset(shards, PATCH_PX, input="up", split=split)
            items.append([(hr.tobytes(), up.tobytes()) for hr, up in pairs])
        assert items[0] == items[1] and len(items[0]) == len(with_up.split(split)) > 0
    for stored, computed in zip(with_up.split(split), without.split(split), strict=True):
        assert np.array_equal(stored.up, computed.up) and computed.up is computed.up


def test_addresses_of_tars_with_and_without_up(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    with_up, without = make_pair(*SETS[0])
    both = []
    for shards in (with_up, without):
        tars = [shards.tar(record) for record in shards.train.records]
        pipeline = srshards.webdataset(tars, PATCH_PX, input="up", shuffle=0)
        both.append([(hr.tobytes(), up.tobytes()) for hr, up in pipeline])
    assert both[0] == both[1] and len(both[0]) == len(with_up.train)


def test_a_tar_whose_method_is_unknown_is_refused(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    _, without = make_pair(*SETS[0])
    content = without.tar(without.train.records[0]).read_bytes()
    tar = tmp_path / "train-000000.tar"
    tar.write_bytes(content.replace(b'"method": "cubic"', b'"method": "spine"'))
    pipeline = srshards.webdataset([tar], PATCH_PX, input="up")
    with pytest.raises(srshards.RunError, match="has no up image, which cannot be computed by the unknown method 'spi"):
        next(iter(pipeline))
    assert next(iter(srshards.webdataset([tar], PATCH_PX))).input.shape == (PATCH_PX // 3, PATCH_PX // 3, 3)


# ---- variants


def test_every_variant_is_upsampled(photos: Path, tmp_path: Path) -> None:
    recipe = ("--degradation", "bsrgan-light", "--variants", 3, "--no-up", "--method", "linear", "--val-fraction", 0)
    generate(photos, tmp_path, "-s", 2, *recipe)
    shards = srshards.open(tmp_path / "scale_2x")
    lr, up = (srshards.PatchDataset(shards, 64, input=name, augment=False) for name in ("lr", "up"))
    sample = shards[5]
    shown = set()
    for epoch in range(3):
        small, large = lr.at_epoch(5, epoch).input, up.at_epoch(5, epoch).input
        assert np.array_equal(large, upsample(small, 2, "linear"))
        shown.add(large.tobytes())
    assert len(shown) == 3 and sample.up.tobytes() in shown
    assert np.array_equal(sample.up, upsample(sample.lr, 2, "linear"))
    pipelines = [srshards.webdataset(shards, 64, input=name, augment=False, shuffle=0) for name in ("lr", "up")]
    pairs = list(zip(*pipelines, strict=True))
    assert len(pairs) == len(shards)
    assert all(np.array_equal(large.input, upsample(small.input, 2, "linear")) for small, large in pairs)
    firsts = [np.array_equal(pair.input, sample.lr) for sample, (pair, _) in zip(shards, pairs, strict=True)]
    assert True in firsts and False in firsts
    expected = batches(shards)
    assert batches(shards, resident=True) == expected == batches(shards, workers=2)


# ---- training and evaluation


def test_a_training_is_that_on_shards_with_up(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    outputs, weights = [], []
    for shards in make_pair(*SETS[0]):
        args = ("--out", tmp_path, *SMALL, "--patch-size", PATCH_PX, "--steps", 2, "--input", "up")
        run = shards.path.parent.name
        result = trainer("--shards", shards.path, *args, "--run", run)
        assert result.code == 0, result.err
        weights.append(torch.load(tmp_path / run / "model.pth", weights_only=True)["params"])
        line = next(line for line in result.err.splitlines() if line.startswith("Network"))
        outputs.append((line.partition(", upsampled")[2], [one for one in result.err.splitlines() if "PSNR-Y" in one]))
    (stored, psnr), (computed, same_psnr) = outputs
    assert stored == " image in, restored image out"
    assert computed == " image (computed from LR by cubic) in, restored image out"
    assert psnr == same_psnr != []
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_evaluation_is_that_on_shards_with_up(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    pair = make_pair(*SETS[1])
    args = ("--out", tmp_path, *SMALL, "--patch-size", PATCH_PX, "--steps", 1, "--input", "up", "--run", "r")
    assert trainer("--shards", pair[0].path, *args).code == 0
    found = []
    for shards in pair:
        result = trainer(
            "evaluate", "--weights", tmp_path / "r/model.pth", "--shards", shards.path, "--device", "cpu", "--json"
        )
        assert result.code == 0, result.err
        found.append(json.loads(result.out)["images"])
    assert found[0] == found[1] != []


# ---- manifests that do not name the method


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (None, NO_METHOD),
        ("spline", "manifest.json has the unknown method 'spline' (settings.method); generate the sha"),
    ],
)
def test_up_that_cannot_be_computed_is_refused(
    method: str | None, reason: str, make_pair: Callable[..., Pair], tmp_path: Path
) -> None:
    _, without = make_pair(*SETS[0])
    folder = tmp_path / "shards"
    folder.mkdir()
    for file in without.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    manifest["settings"] |= {"method": method}
    if method is None:
        del manifest["settings"]["method"]
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    shards = srshards.open(folder)
    message = f"{folder} has no upsampled images, and they cannot be computed from LR: {reason}"
    for use in (
        lambda: srshards.PatchLoader(shards, PATCH_PX, 4, input="up"),
        lambda: srshards.PatchDataset(shards, PATCH_PX, input="up"),
        lambda: srshards.webdataset(shards, PATCH_PX, input="up"),
        lambda: shards[0].up,
    ):
        with pytest.raises(srshards.ArgumentError) as refused:
            use()
        assert message in str(refused.value)
    assert len(srshards.PatchLoader(shards, PATCH_PX, 4)) > 0  # LR needs no method
    result = trainer("--shards", folder, "--out", tmp_path, *SMALL, "--patch-size", PATCH_PX, "--input", "up")
    assert result.code == 2 and message in result.err
    trained = ("--out", tmp_path, *SMALL, "--patch-size", PATCH_PX, "--steps", 1, "--input", "up", "--run", "r")
    assert trainer("--shards", without.path, *trained).code == 0
    evaluated = trainer("evaluate", "--weights", tmp_path / "r/model.pth", "--shards", folder, "--device", "cpu")
    assert evaluated.code == 2 and message in evaluated.err
