"""Upscaling photos: tiles, memory, output files, comparisons and errors."""

import errno
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import deep_folder, make_photo, mode_and_size
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from srshards.errors import RunError, UsageError
from srshards.imaging.photo import DecodedPhoto
from srshards.process.shortages import is_out_of_memory
from trainer.inference import comparison, tile_memory, tiles, upscale
from trainer.inference.photo_files import list_photos, read_photo
from trainer.inference.tile_memory import apply_within_memory, choose_tile, free_bytes, tensor_bytes_per_pixel
from trainer.inference.tiles import TileRule, apply_in_tiles
from trainer.inference.upscale import Listener, Upscaled, upscale_photos
from trainer.models import BuiltInSpec, Network

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads only slow these tiny networks down; a training in the same process may have changed their number."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(previous)


def network(scale: int = 2, kind: str = "compact") -> Network:
    """Return a tiny network whose output pixels depend on their complete receptive field."""
    spec = BuiltInSpec(kind, scale, 8, 2, 4 if kind == "rrdb" else None)
    model = spec.build(seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


class Plain(Network, architecture="plain for tests"):
    """Nearest-neighbour upscaling without parameters. Records the sizes it gets and can run out of memory."""

    scales = (1, 2, 3, 4)

    def __init__(self, spec: BuiltInSpec) -> None:
        super().__init__(spec)
        self.sizes: list[tuple[int, int]] = []
        self.max_pixels = 10**9

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[2], images.shape[3]))
        if images.shape[2] * images.shape[3] > self.max_pixels:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 GB")
        return nn.functional.interpolate(images, scale_factor=self.scale, mode="nearest")

    @staticmethod
    def margin_px(spec: BuiltInSpec) -> int:
        return 2


def plain(scale: int = 2) -> Plain:
    return Plain(BuiltInSpec("plain for tests", scale, 1, 1))


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ---- tiles


@settings(max_examples=300)
@given(
    size=st.integers(1, 400),
    tile=st.integers(4, 120),
    margin=st.integers(0, 40),
    multiple=st.sampled_from((1, 2, 4, 7, 8, 16, 32)),
)
def test_tiles_are_aligned_equal_and_cover_each_pixel_once(size: int, tile: int, margin: int, multiple: int) -> None:
    rule, grid = TileRule(margin, multiple), math.lcm(4, multiple)
    aligned_margin = -(-margin // grid) * grid
    try:
        windows = tiles._windows(size, tile, rule)
    except UsageError:
        assert tile // grid * grid - 2 * aligned_margin <= 0
        return
    kept = [pixel for window in windows for pixel in range(window.keep_start, window.keep_end)]
    assert kept == list(range(size))
    lengths = [window.end - window.start for window in windows]
    assert max(lengths) <= tile or len(windows) == 1
    assert len(set(lengths[:-1])) <= 1 and lengths[0] - grid < lengths[-1] <= lengths[0]
    if size % grid == 0:
        assert len(set(lengths)) == 1, "the last tile has a different size"
    overlap = sum(lengths) - size
    assert overlap <= (len(windows) - 1) * 2 * aligned_margin + grid * len(windows), "more than the margins"
    for window in windows:
        assert window.start % grid == 0 and window.start >= 0 and window.end <= size
        assert window.start == 0 or window.keep_start - window.start >= margin
        assert window.end == size or window.end - window.keep_end >= margin


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 75), (30, 130), (97, 33)])
def test_tiles_give_the_same_output_as_the_complete_image(scale: int, height: int, width: int) -> None:
    model, pixels = network(scale), image(height, width)
    untiled = apply_in_tiles(model, pixels, None, TileRule.of(model.spec))
    assert untiled.shape == (1, 3, height * scale, width * scale)
    for tile in (20, 32, 50):
        tiled = apply_in_tiles(model, pixels, tile, TileRule.of(model.spec))
        assert torch.allclose(tiled, untiled, atol=1e-5), f"tile {tile}: off by {(tiled - untiled).abs().max()}"


@pytest.mark.parametrize("scale", [1, 2])
def test_tiles_give_the_same_output_for_networks_that_fold_pixels(scale: int) -> None:
    """rrdb unshuffles 4 x 4 px at 1x and 2 x 2 px at 2x. The margin is the receptive radius of its few convolutions."""
    model, pixels = network(scale, "rrdb"), image(150, 171)
    rule = TileRule(4 // scale * (2 * 3 * 5 + 6), 4 // scale)
    untiled = apply_in_tiles(model, pixels, None, rule)
    tiled = apply_in_tiles(model, pixels, 2 * rule.aligned_margin_px + 12, rule, torch.float32)
    assert torch.allclose(tiled, untiled, atol=1e-5), f"off by {(tiled - untiled).abs().max()}"


def test_too_narrow_a_margin_changes_the_output() -> None:
    """Proves that the tests above would detect seams."""
    model, pixels = network(2), image(64, 96)
    untiled = apply_in_tiles(model, pixels, None, TileRule(0))
    assert not torch.allclose(apply_in_tiles(model, pixels, 20, TileRule(0)), untiled, atol=1e-3)


def test_uint8_in_and_out() -> None:
    model = network(2)
    levels = torch.from_numpy(make_photo(53, 70, 0).transpose(2, 0, 1).copy())[None]
    exact = apply_in_tiles(model, levels.float() / 255, None, TileRule.of(model.spec))
    expected = (exact * 255).round().clamp(0, 255).to(torch.uint8)
    for tile in (None, 24):
        given_levels = apply_in_tiles(model, levels, tile, TileRule.of(model.spec), torch.uint8)
        assert given_levels.dtype == torch.uint8
        assert (given_levels.int() - expected.int()).abs().max() <= (0 if tile is None else 1)
    assert apply_in_tiles(model, levels, None, TileRule(4), torch.float16).dtype == torch.float16


def test_the_network_keeps_its_dtype_and_records_no_gradients() -> None:
    model = network(2).to(torch.bfloat16)
    output = apply_in_tiles(model, image(20, 20), None, TileRule(4))
    assert output.dtype == torch.float32 and not output.requires_grad


def test_networks_on_a_cpu_compute_in_channels_last_layout() -> None:
    model, strides = network(2), []
    for convolution in filter(lambda module: isinstance(module, nn.Conv2d), model.modules()):
        convolution.register_forward_hook(lambda module, inputs, output: strides.append(output.stride(1)))
    levels = torch.from_numpy(make_photo(30, 50, 0))
    outputs = [
        apply_in_tiles(model, pixels[None], tile, TileRule(4), torch.uint8)
        for pixels in (levels.permute(2, 0, 1), levels.permute(2, 0, 1).contiguous())
        for tile in (None, 24)
    ]
    assert set(strides) == {1}
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in outputs)


def test_progress_rises_within_a_pass_and_over_the_tiles() -> None:
    model, pixels = network(2), image(60, 40)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    for tile in (None, 32):
        shares: list[float] = []
        windows = [1 if tile is None else len(tiles._windows(size, tile, TileRule(4))) for size in (60, 40)]
        output = apply_in_tiles(model, pixels, tile, TileRule(4), torch.float32, shares.append)
        assert len(shares) == (convolutions + 1) * windows[0] * windows[1]
        assert shares == sorted(shares) and 0 < shares[0] < 1 and shares[-1] == 1
        assert shares[-2] == pytest.approx(1), "all multiplications are counted"
        assert torch.equal(output, apply_in_tiles(model, pixels, tile, TileRule(4))), "no hook is left"
        assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_non_finite_output_is_an_error(value: str) -> None:
    model = network(2)
    with torch.no_grad():
        list(model.parameters())[-1][0] = float(value)  # the bias of one output channel
    with pytest.raises(RunError, match="not finite: its weights are broken"):
        apply_in_tiles(model, image(20, 20), None, TileRule(4), torch.uint8)


@pytest.mark.parametrize("tile", [-5, 0, 3, 8, 11])
def test_a_tile_without_interior_is_refused(tile: int) -> None:
    with pytest.raises(
        UsageError,
        match=rf"--tile {tile}: expected 12 px or more, because .* a margin of 3 px .*; pass --tile auto, or --tile 40",
    ):
        apply_in_tiles(network(2), image(50, 50), tile, TileRule(3))
    assert apply_in_tiles(network(2), image(50, 50), 12, TileRule(3)).shape == (1, 3, 100, 100)


# ---- memory


def test_tiles_are_halved_until_they_fit_into_memory() -> None:
    model, pixels = plain(), image(300, 200)
    model.max_pixels = 60 * 60
    output = apply_within_memory(model, pixels, None, TileRule(2))
    assert torch.equal(output, apply_in_tiles(plain(), pixels, None, TileRule(2)))
    tried = [max(shape) for shape in model.sizes]
    assert tried[0] == 300 and tried[1:3] == [108, 72] and set(tried[3:]) == {40}, "300, 148, 72 and 40, balanced"


def test_out_of_memory_with_the_smallest_tile_gives_advice() -> None:
    model = plain()
    model.max_pixels = 100
    with pytest.raises(
        UsageError, match=r"out of memory even with tiles of 40 px; pass --tile 12, which is slow, close"
    ):
        apply_within_memory(model, image(300, 200), None, TileRule(2))
    with pytest.raises(UsageError, match=r"with tiles of 12 px; close"):
        apply_within_memory(model, image(300, 200), 12, TileRule(2))


def test_other_errors_are_not_retried() -> None:
    class Broken(Plain, architecture="broken for tests"):
        def forward(self, images: Tensor) -> Tensor:
            self.sizes.append((0, 0))
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    broken = Broken(BuiltInSpec("broken for tests", 2, 1, 1))
    with pytest.raises(RuntimeError, match="mat1"):
        apply_within_memory(broken, image(100, 100), None, TileRule(2))
    assert len(broken.sizes) == 1


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("OpenCV: Insufficient memory: Failed to allocate 9 bytes"), True),
        (RuntimeError("Expected 3 channels"), False),
    ],
)
def test_is_out_of_memory_recognises_all_backends(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory


def test_tensor_bytes_per_pixel_counts_live_tensors() -> None:
    """The image stays allocated throughout; of the others, the input and output of one operation."""
    layers = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 7, 3, padding=1), nn.Conv2d(7, 2, 1))
    assert tensor_bytes_per_pixel(layers) == 4 * (3 + 10 + 7)
    assert tensor_bytes_per_pixel(layers.to(torch.float16)) == 4 * (3 + 10 + 7), "counted once per network"
    halves = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1)).half()
    assert tensor_bytes_per_pixel(halves) == 2 * (3 + 10)
    shuffled = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
    assert tensor_bytes_per_pixel(shuffled) == 4 * (3 + 12 + 12)
    assert tensor_bytes_per_pixel(network(2)) > 4 * 8 * 2
    assert all(parameter.device == CPU for parameter in layers.parameters())


def test_choose_tile_returns_the_largest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(2)
    per_pixel = 2 * 2 * tensor_bytes_per_pixel(model)  # overhead, and half of the free memory

    def choose(free: float, height: int = 1000, width: int = 600, device: str = "cuda") -> int | None:
        monkeypatch.setattr(tile_memory, "free_bytes", lambda device: int(free))
        return choose_tile(model, height, width, torch.device(device))

    output = 3 * 1000 * 600 * 4
    assert choose(per_pixel * 1000 * 600 + 1000) is None
    assert choose(per_pixel * 1000 * 600 - 1000) == 772
    assert choose(per_pixel * 200 * 200 + 2 * output + 1000, device="cpu") == 200, "without the output"
    assert choose(per_pixel * 203 * 203 + 2 * output + 1000, device="cpu") == 200, "multiples of 4"
    for device in ("cuda", "cpu"):
        assert choose(0, device=device) == TileRule(4).smallest_px == 40
        assert choose(0, 30, 30, device) is None, "smaller than the smallest tile"
    assert choose(1e15) is None
    assert choose(1e15, 100_000, 100_000) == int((8 << 30) ** 0.5 / (per_pixel / 2) ** 0.5) // 4 * 4, "8 GiB are enough"


def test_tiles_on_a_cpu_have_32_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger ones are slower, and the choice does not depend on the free memory, so that results are reproducible."""
    for free in (2 << 30, 1 << 40):
        monkeypatch.setattr(tile_memory, "free_bytes", lambda device, free=free: free)
        chosen = {depth: BuiltInSpec("compact", 2, 8, depth).build() for depth in (2, 8, 16)}
        tiles_px = {depth: choose_tile(model, 1500, 2000, CPU) for depth, model in chosen.items()}
        assert tiles_px == {2: 256, 8: 32 * 12, 16: 32 * 20}, "margins of 4, 12 and 20 px; at least 256 px"
        assert choose_tile(chosen[8], 300, 400, CPU) is None, "no more pixels than a tile"


def test_free_bytes_of_the_cpu_is_the_available_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_memory, "available_memory_bytes", lambda: 12_345)
    assert free_bytes(CPU) == 12_345


def save(path: Path, picture: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


# ---- upscaling


def photos(folder: Path, *names: str) -> list[Path]:
    paths = []
    for number, name in enumerate(names):
        paths.append(save(folder / name, Image.fromarray(make_photo(30, 40 + number, number))))
    return paths


class Results(Listener):
    """Collects the results and the progress of each photo."""

    def __init__(self) -> None:
        self.upscaled: list[Upscaled] = []
        self.shares: dict[int, list[float]] = {}

    def progressed(self, index: int, share: float) -> None:
        self.shares.setdefault(index, []).append(share)

    def wrote(self, upscaled: Upscaled) -> None:
        self.upscaled.append(upscaled)


def run(model: Network, paths: list[Path], output: Path, **options: Any) -> list[Upscaled]:
    results = Results()
    upscale_photos(model, paths, output, device=CPU, listener=results, **options)
    return results.upscaled


def test_the_result_is_the_output_of_the_network(tmp_path: Path) -> None:
    path, model = photos(tmp_path, "a.png")[0], network(4)
    upscaled = run(model, [path], tmp_path / "out")[0]
    levels = torch.from_numpy(make_photo(30, 40, 0).transpose(2, 0, 1).copy())[None]
    expected = apply_in_tiles(model, levels, None, TileRule(0), torch.uint8)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(read_photo(tmp_path / "out" / "a_4x.png").rgb, expected)
    assert upscaled.photo == path and upscaled.result == tmp_path / "out" / "a_4x.png" and upscaled.compare is None
    assert upscaled.size_before == (40, 30) and upscaled.size_after == (160, 120) and 0 < upscaled.seconds < 60
    assert not upscaled.replaced
    assert run(model, [path], tmp_path / "out")[0].replaced, "the result existed before"


@pytest.mark.parametrize("tile", [24, None, "auto"])
def test_the_tile_does_not_change_the_result(tile: Any, tmp_path: Path) -> None:
    path, model = photos(tmp_path, "a.png")[0], network(2)
    run(model, [path], tmp_path / "b.png", tile=tile)
    run(model, [path], tmp_path / "c.png", tile=None)
    difference = read_photo(tmp_path / "b.png").rgb.astype(int) - read_photo(tmp_path / "c.png").rgb
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", ["b.png", "b.webp", "b.jpg", "sub/b.JPEG"])
def test_the_output_of_one_photo_may_be_a_file(name: str, tmp_path: Path) -> None:
    upscaled = run(plain(), photos(tmp_path, "a.png"), tmp_path / name)
    assert [entry.result for entry in upscaled] == [tmp_path / name] and (tmp_path / name).is_file()


def test_an_existing_folder_is_never_taken_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "photos.png").mkdir()
    assert run(plain(), photos(tmp_path, "a.png"), tmp_path / "photos.png")[0].result.name == "a_2x.png"


@pytest.mark.parametrize(
    ("names", "results"),
    [
        (["a.jpg", "b.png"], ["a_2x.png", "b_2x.png"]),
        (["x/a.jpg", "y/b.png"], ["a_2x.png", "b_2x.png"]),
        (["x/a.jpg", "y/a.jpg", "z.jpg"], ["x/a_2x.png", "y/a_2x.png", "z_2x.png"]),
        (["x/y/a.jpg", "x/z/a.jpg"], ["y/a_2x.png", "z/a_2x.png"]),
        (["a.jpg", "a.png", "a.webp"], ["a_2x.png", "a_2_2x.png", "a_3_2x.png"]),
        (["x/a.jpg", "x/A.png"], ["a_2x.png", "A_2_2x.png"]),
        (["x/a.jpg", "y/A.png"], ["x/a_2x.png", "y/A_2x.png"]),
        (["a_2.jpg", "a.jpg", "a.png"], ["a_2_2x.png", "a_2x.png", "a_3_2x.png"]),
    ],
)
def test_results_have_distinct_names(names: list[str], results: list[str], tmp_path: Path) -> None:
    paths = photos(tmp_path / "in", *names)
    upscaled = run(plain(), paths, tmp_path / "out", compare=True)
    assert [str(entry.result.relative_to(tmp_path / "out")) for entry in upscaled] == results
    for number, entry in enumerate(upscaled):
        assert entry.size_after == (80 + 2 * number, 60) and mode_and_size(entry.result)[1] == entry.size_after
    assert len({path for entry in upscaled for path in (entry.result, entry.compare)}) == 2 * len(names)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_results_of_grey_photos_are_grey(mode: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(make_photo(30, 40, 0)).convert(mode))
    upscaled = run(network(2), [path], tmp_path / "out")[0]
    assert mode_and_size(upscaled.result)[0] == mode
    levels = torch.from_numpy(read_photo(path).rgb.transpose(2, 0, 1).copy())[None]
    output = apply_in_tiles(network(2), levels, None, TileRule(0), torch.uint8)[0].permute(1, 2, 0).numpy()
    assert np.ptp(output, axis=2).max() > 3, "the network produces no tint"
    grey = read_photo(upscaled.result).rgb[:, :, 0]
    assert np.abs(output @ [0.299, 0.587, 0.114] - grey).max() <= 1, "not the luma of the network's output"
    colour = save(tmp_path / "b.png", Image.fromarray(make_photo(30, 40, 0)))
    assert mode_and_size(run(network(2), [colour], tmp_path / "out")[0].result)[0] == "RGB"


def test_alpha_is_upscaled_and_hidden_colours_do_not_bleed(tmp_path: Path) -> None:
    """A red disc on transparent black, as drawing programs save it."""
    y, x = np.mgrid[:40, :40]
    inside = (y - 20) ** 2 + (x - 20) ** 2 < 150
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[inside] = (200, 30, 30, 255)
    path = save(tmp_path / "a.png", Image.fromarray(rgba))
    model = network(2)
    upscaled = run(model, [path], tmp_path / "out", compare=True)[0]
    result = read_photo(upscaled.result)
    assert result.alpha is not None
    assert np.array_equal(result.alpha, cv2.resize(rgba[:, :, 3], (80, 80), interpolation=cv2.INTER_CUBIC))
    flat = np.full((40, 40, 3), (200, 30, 30), np.uint8)
    levels = torch.from_numpy(flat.transpose(2, 0, 1).copy())[None]
    expected = apply_in_tiles(model, levels, None, TileRule(0), torch.uint8)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(result.rgb, expected), "the hidden black reached the network"


def test_fully_transparent_photos_are_upscaled(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(np.zeros((20, 20, 4), np.uint8)))
    result = read_photo(run(plain(), [path], tmp_path / "out", compare=True)[0].result)
    assert result.alpha is not None and not result.alpha.any()


def test_1x_networks_get_an_upsampled_photo(tmp_path: Path) -> None:
    path = photos(tmp_path, "a.png")[0]
    upscaled = run(plain(1), [path], tmp_path / "out", scale=3)[0]
    assert upscaled.result.name == "a_3x.png" and upscaled.size_after == (120, 90)
    expected = cv2.resize(make_photo(30, 40, 0), (120, 90), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(read_photo(upscaled.result).rgb, expected)


def test_an_invalid_output_is_refused_at_once(tmp_path: Path) -> None:
    paths = photos(tmp_path, "a.png", "b.png")
    (tmp_path / "file").touch()
    for some, output, message in [
        (paths, tmp_path / "out.png", "out.png is a single file, but there are 2 photos; pass a folder"),
        (paths, tmp_path / "file", "file is a file; pass a folder, or a file name ending in .png"),
        (paths[:1], tmp_path / "out.tif", "expected a name ending in .png, .jpg or .webp"),
        (paths[:1], paths[0], "a.png is one of the photos and would be overwritten"),
    ]:
        with pytest.raises(UsageError, match=message):
            upscale_photos(plain(), some, output, device=CPU)


@pytest.mark.parametrize("how", ["result", "comparison", "hard link", "link to the folder"])
def test_overwriting_a_photo_is_refused(how: str, tmp_path: Path) -> None:
    names = {"result": ["a.png", "a_2x.png"], "comparison": ["a.png", "a_2x_compare.png"]}.get(how, ["a.png"])
    paths = photos(tmp_path / "in", *names)
    output = tmp_path / "in"
    if how == "hard link":
        output = tmp_path / "out"
        output.mkdir()
        os.link(paths[0], output / "a_2x.png")
    elif how == "link to the folder":
        output = tmp_path / "link"
        output.symlink_to(tmp_path / "in")
        paths.append(save(tmp_path / "in" / "a_2x.png", Image.new("RGB", (20, 20))))
    before = [path.read_bytes() for path in paths]
    with pytest.raises(UsageError, match="is one of the photos and would be overwritten; pass another --output"):
        upscale_photos(plain(), paths, output, device=CPU, compare=True)
    assert [path.read_bytes() for path in paths] == before


def test_too_long_names_do_not_stop_the_others(tmp_path: Path) -> None:
    longest, longer = f"{'名' * 82}a.png", f"{'名' * 83}ab.png"  # with `_2x`, 253 and 258 bytes
    (tmp_path / "in").mkdir()
    photos(tmp_path / "in", longest, longer)
    deep = deep_folder(tmp_path / "in")
    with pytest.raises(UsageError) as failed:
        run(plain(), list_photos([tmp_path / "in"]), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [longest.replace(".", "_2x.")]
    assert str(failed.value).startswith("2 of 3 photos could not be upscaled:\n  cannot read ")
    assert deep[:3000] in str(failed.value) and ": File name too long\n  cannot write " in str(failed.value)
    assert str(failed.value).endswith(f"{longer.replace('.', '_2x.')}: the name is too long")


def test_an_unreadable_photo_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = photos(tmp_path, "a.png", "c.png")
    broken, missing = tmp_path / "b.jpg", tmp_path / "z.jpg"
    broken.write_bytes(b"nothing")
    written = Results()
    given = [paths[0], broken, missing, paths[1]]
    with pytest.raises(UsageError) as failed:
        upscale_photos(plain(), given, tmp_path / "out", device=CPU, listener=written)
    results = [upscaled.result.name for upscaled in written.upscaled]
    assert results == ["a_2x.png", "c_2x.png"]
    assert [shares[-1] for _, shares in sorted(written.shares.items())] == [1, 1, 1, 1]
    message = str(failed.value)
    assert message.startswith("2 of 4 photos could not be upscaled:\n  cannot read") and failed.value.exit_code == 2
    assert str(broken) in message and str(missing) in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == results


def test_a_single_unreadable_photo_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read .*z.jpg: No such file or directory$"):
        run(plain(), [tmp_path / "z.jpg"], tmp_path / "out")


def test_the_chosen_tile_does_not_change_the_result(tmp_path: Path) -> None:
    """A photo of several tiles of the smallest size that is chosen on a CPU."""
    path, model = save(tmp_path / "a.png", Image.fromarray(make_photo(300, 420, 0))), network(2)
    assert choose_tile(model, 300, 420, CPU) == 256
    run(model, [path], tmp_path / "b.png")
    run(model, [path], tmp_path / "c.png", tile=None)
    difference = read_photo(tmp_path / "b.png").rgb.astype(int) - read_photo(tmp_path / "c.png").rgb
    assert np.abs(difference).max() <= 1 and np.count_nonzero(difference) < 1e-4 * difference.size


# ---- overlapping work


class Overlap:
    """Records the work on photos, and lets one step wait for another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.done: set[str] = set()
        self._changed = threading.Condition()
        self.before_writing: Callable[[str], None] = lambda name: None
        read_photo, write_photo = upscale.read_photo, upscale.write_photo

        def read(path: Path) -> DecodedPhoto:
            self.read.append(path.name)
            try:
                return read_photo(path)
            finally:
                self.finish(f"read {path.name}")

        def write(path: Path, photo: DecodedPhoto) -> None:
            self.before_writing(path.name)
            write_photo(path, photo)

        monkeypatch.setattr(upscale, "read_photo", read)
        monkeypatch.setattr(upscale, "write_photo", write)

    def finish(self, step: str) -> None:
        with self._changed:
            self.done.add(step)
            self._changed.notify_all()

    def wait(self, step: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: step in self.done, timeout=60), f"{step} did not overlap"


@pytest.fixture
def overlap(monkeypatch: pytest.MonkeyPatch) -> Overlap:
    return Overlap(monkeypatch)


class Followed(Plain, architecture="followed for tests"):
    """Calls `before(number of the pass)` at the start of each forward pass."""

    before: Callable[[int], None] = staticmethod(lambda number: None)

    def forward(self, images: Tensor) -> Tensor:
        self.before(len(self.sizes))
        return super().forward(images)


def followed(before: Callable[[int], None]) -> Followed:
    """Pass tile=None: choosing a tile takes a pass, too."""
    model = Followed(BuiltInSpec("followed for tests", 2, 1, 1))
    model.before = before
    return model


def test_photos_are_read_and_written_while_the_network_computes(overlap: Overlap, tmp_path: Path) -> None:
    paths = photos(tmp_path, "a.png", "b.png", "c.png", "d.png")
    seen = []

    def compute(number: int) -> None:
        overlap.finish(f"compute {number}")
        if number < 3:
            overlap.wait(f"read {paths[number + 1].name}")
        seen.append(list(overlap.read))

    def write(name: str) -> None:
        number = ["a_2x.png", "b_2x.png", "c_2x.png", "d_2x.png"].index(name)
        if number < 3:
            overlap.wait(f"compute {number + 1}")

    overlap.before_writing = write
    results = run(followed(compute), paths, tmp_path / "out", tile=None, compare=True)
    assert [upscaled.photo for upscaled in results] == paths
    names = [path.name for path in paths]
    assert seen == [names[:2], names[:3], names, names], "more than one photo was read ahead"
    assert len(list((tmp_path / "out").iterdir())) == 8


class Immediately:
    """An executor that has finished when `submit` returns."""

    def __init__(self, *args: object) -> None:
        pass

    def __enter__(self) -> "Immediately":
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def submit(self, action: Callable[..., Upscaled], *args: Any) -> Future[Upscaled]:
        future = Future[Upscaled]()
        try:
            future.set_result(action(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Events(Listener):
    """Records the progress of each photo by its index, and the names of the results."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def progressed(self, index: int, share: float) -> None:
        self.all.append(f"{index}: {share:.2f}")

    def wrote(self, upscaled: Upscaled) -> None:
        self.all.append(upscaled.result.name)


def test_results_are_reported_while_the_next_photo_is_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upscale, "ThreadPoolExecutor", Immediately)
    events = Events()
    paths = photos(tmp_path, "a.png", "b.png")
    upscale_photos(plain(), paths, tmp_path / "out", device=CPU, tile=32, listener=events)
    assert events.all == [
        *("0: 0.47", "0: 0.95", "0: 1.00", "a_2x.png"),
        *("1: 0.56", "1: 0.95", "1: 1.00", "b_2x.png"),
    ]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_a_failed_write_ends_the_work_on_the_next_photo(
    error: Exception, overlap: Overlap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lack of memory in the writer is not one of the network, whose tiles would be halved."""

    def fail(name: str) -> None:
        if name == "b_2x.png":
            raise error

    overlap.before_writing = fail
    monkeypatch.setattr(upscale, "ThreadPoolExecutor", Immediately)
    model, results = plain(), Results()
    paths = [save(tmp_path / f"{name}.png", Image.new("RGB", (100, 100))) for name in "abcd"]
    with pytest.raises(type(error)):
        upscale_photos(model, paths, tmp_path / "out", device=CPU, tile=60, listener=results)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_2x.png"]
    assert [upscaled.photo for upscaled in results.upscaled] == paths[:1]
    assert len(model.sizes) == 4 + 4 + 1, "four tiles of a and b, and the first of c"


def test_an_interrupt_leaves_complete_files_only(overlap: Overlap, tmp_path: Path) -> None:
    """While b is computed and a is written."""

    def compute(number: int) -> None:
        if number == 1:
            overlap.finish("interrupt")
            signal.raise_signal(signal.SIGINT)

    overlap.before_writing = lambda name: overlap.wait("interrupt")
    paths, results = photos(tmp_path, "a.png", "b.png", "c.png"), Results()
    with pytest.raises(KeyboardInterrupt):
        upscale_photos(followed(compute), paths, tmp_path / "out", device=CPU, tile=None, listener=results)
    assert [upscaled.result.name for upscaled in results.upscaled] == ["a_2x.png"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_2x.png"]
    assert read_photo(tmp_path / "out" / "a_2x.png").rgb.shape == (60, 80, 3)


def test_a_photo_that_cannot_be_read_ahead_is_read_on_its_turn(overlap: Overlap, tmp_path: Path) -> None:
    """The photo before it may have used up the memory."""
    paths = photos(tmp_path, "a.png", "b.png")
    content = paths[1].read_bytes()
    paths[1].write_bytes(b"")

    def compute(number: int) -> None:
        if number == 0:
            overlap.wait("read b.png")
            paths[1].write_bytes(content)

    assert len(run(followed(compute), paths, tmp_path / "out", tile=None)) == 2
    assert overlap.read == ["a.png", "b.png", "b.png"]


def test_little_memory_lets_photos_wait_for_each_other(
    overlap: Overlap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = photos(tmp_path, "a.png", "b.png", "c.png")
    monkeypatch.setattr(upscale, "available_memory_bytes", lambda: 10_000)
    written, seen = [], []
    overlap.before_writing = written.append

    def compute(number: int) -> None:
        seen.append((list(overlap.read), list(written)))

    results = run(followed(compute), paths, tmp_path / "out", tile=None)
    names, outputs = [path.name for path in paths], [upscaled.result.name for upscaled in results]
    assert seen == [(names[: number + 1], outputs[:number]) for number in range(3)]


def test_a_photo_that_needs_the_memory_of_the_last_result_is_tried_again(overlap: Overlap, tmp_path: Path) -> None:
    def compute(number: int) -> None:
        model.max_pixels = (
            100 if number in (1, 2) else 10**9
        )  # fails for the complete photo b, and in the smallest tiles
        overlap.finish(f"compute {number}")

    model, paths = followed(compute), photos(tmp_path, "a.png", "b.png")
    overlap.before_writing = lambda name: overlap.wait("compute 2") if name == "a_2x.png" else None
    assert [upscaled.photo for upscaled in run(model, paths, tmp_path / "out", tile=None)] == paths
    assert model.sizes[3:] == [(30, 41)]


def test_transparency_is_refused_for_jpeg_before_the_work(tmp_path: Path) -> None:
    model = plain()
    path = save(tmp_path / "a.png", Image.fromarray(np.zeros((20, 20, 4), np.uint8)))
    with pytest.raises(UsageError, match="transparency"):
        run(model, [path], tmp_path / "b.jpg")
    assert not model.sizes


def test_out_of_memory_fails_one_photo_only(tmp_path: Path) -> None:
    model = plain()
    model.max_pixels = 900
    small = save(tmp_path / "s.png", Image.new("RGB", (30, 30)))
    large = save(tmp_path / "l.png", Image.new("RGB", (90, 90)))
    with pytest.raises(UsageError, match=r"1 of 2 photos .*\n.*out of memory even with tiles of 40 px"):
        run(model, [large, small], tmp_path / "out", tile=None)
    assert (tmp_path / "out" / "s_2x.png").exists()


# ---- the comparison


def test_the_comparison_shows_the_most_detailed_crop(tmp_path: Path) -> None:
    """The crop shows the only textured patch of the photo, at the size of the result."""
    pixels = np.random.default_rng(1).integers(80, 84, (300, 400, 3), dtype=np.uint8)
    pixels[150:270, 230:350] = np.random.default_rng(0).integers(60, 120, (120, 120, 3))
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    upscaled = run(plain(4), [path], tmp_path / "out", compare=True)[0]
    assert upscaled.compare == tmp_path / "out" / "a_4x_compare.png"
    drawn = np.asarray(Image.open(upscaled.compare))
    assert drawn.shape[1] == 2 * 480 + 3 * 8
    right = drawn[30 : 30 + 480, 16 + 480 : 16 + 960]
    assert np.abs(right[::4, ::4].astype(int) - pixels[150:270, 230:350]).max() == 0, "not at the texture"
    left = drawn[30 : 30 + 480, 8:488]
    expected = comparison.bicubic_up(pixels, 4)[600:1080, 920:1400]
    assert np.array_equal(left, expected), "not a crop of the bicubic result"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (200, 3), (121, 119)])
@pytest.mark.parametrize("scale", [1, 3])
def test_the_comparison_of_small_photos_is_complete(height: int, width: int, scale: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(make_photo(max(height, 8), max(width, 8), 0)[:height, :width]))
    upscaled = run(plain(scale), [path], tmp_path / "out", compare=True, scale=3)[0]
    assert upscaled.compare is not None
    assert mode_and_size(upscaled.compare)[1][0] == 2 * min(width * 3, 480) + 3 * 8


def test_the_comparison_of_transparent_photos_has_a_grey_background(tmp_path: Path) -> None:
    rgba = np.zeros((40, 40, 4), np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(rgba))
    upscaled = run(plain(2), [path], tmp_path / "out", compare=True)[0]
    assert upscaled.compare is not None
    assert (np.asarray(Image.open(upscaled.compare))[30:110, 8:88] == 96).all()


def test_a_full_disk_stops_upscaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image, *args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    paths = photos(tmp_path, "a.png", "b.png")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match=r"cannot write .*a_2x.png: No space left on device"):
        run(plain(), paths, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
