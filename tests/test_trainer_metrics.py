"""PSNR and SSIM compared with scikit-image and closed forms."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srshards.imaging.luma import luma_studio_range
from trainer.evaluation.metrics import Quality, mean_quality, measure

Pixels = NDArray[np.uint8]


def real_photo() -> Pixels:
    """512 x 512 x 3."""
    return np.ascontiguousarray(data.astronaut())


def worse(photo: Pixels, kind: str) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 12, photo.shape)
    variants = {
        "blurred": lambda: cv2.GaussianBlur(photo, (0, 0), 1.5),
        "noisy": lambda: np.clip(photo + noise, 0, 255).astype(np.uint8),
        "one level off": lambda: photo ^ 1,
        "inverted": lambda: 255 - photo,
        "black": lambda: np.zeros_like(photo),
        "downscaled": lambda: cv2.resize(cv2.resize(photo, None, fx=0.25, fy=0.25), photo.shape[1::-1]),
    }
    return np.asarray(variants[kind]())


KINDS = ["blurred", "noisy", "one level off", "inverted", "black", "downscaled"]


def batch(*images: NDArray[np.generic]) -> torch.Tensor:
    """N x 3 x H x W, in channels_last layout."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def measured(output: Pixels, target: Pixels, border: int = 0) -> Quality:
    return Quality(*measure(batch(output), batch(target), border)[0].tolist())


def reference(output: Pixels, target: Pixels, border: int = 0) -> Quality:
    """The metrics by scikit-image."""
    inside = slice(border, -border or None)
    output, target = (np.ascontiguousarray(image[inside, inside]) for image in (output, target))
    planes = ((output, target), (luma_studio_range(output), luma_studio_range(target)))
    return Quality(*(reference_psnr(*pair) for pair in planes), *(reference_ssim(*pair) for pair in planes))


def reference_psnr(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return math.inf if np.array_equal(a, b) else float(peak_signal_noise_ratio(b, a, data_range=255))


def reference_ssim(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(a, b, channel_axis=2 if a.ndim == 3 else None, **options))


def same(found: Quality, expected: Quality) -> bool:
    """Far closer than the digits that are reported."""
    return astuple(found) == pytest.approx(astuple(expected), abs=1e-9)


# ---- PSNR and SSIM


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_match_scikit_image(kind: str) -> None:
    photo = real_photo()[:301, :257]  # several blocks in both directions, the last ones incomplete
    output = worse(photo, kind)
    assert same(measured(output, photo, 3), reference(output, photo, 3))


@settings(max_examples=40)
@given(
    pair=st.tuples(st.integers(11, 90), st.integers(11, 70)).flatmap(
        lambda size: st.tuples(*2 * [arrays.arrays(np.uint8, (*size, 3), elements=st.integers(0, 255))])
    )
)
def test_metrics_match_scikit_image_on_random_pixels(pair: tuple[Pixels, Pixels]) -> None:
    a, b = pair
    assert same(measured(a, b), reference(a, b))
    assert same(measured(a, b), measured(b, a))


def one_pixel_off(image: Pixels) -> Pixels:
    changed = image.copy()
    changed[7, 8, 2] ^= 1
    return changed


def gradient(height: int, width: int) -> Pixels:
    return np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def saturated(height: int, width: int) -> Pixels:
    """Black and white pixels at random, beside flat black and white."""
    image = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (height, width))
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = 0, 255
    return image[:, :, None].repeat(3, axis=2)


@pytest.mark.parametrize("size", [(11, 11), (15, 90), (58, 58), (59, 13), (106, 107)])
@pytest.mark.parametrize("border", [0, 1, 4, 8])
def test_metrics_match_scikit_image_on_synthetic_images(size: tuple[int, int], border: int) -> None:
    """Flat, saturated and nearly equal images need the precision. Sizes are those inside the border."""
    height, width = (edge + 2 * border for edge in size)
    photo = real_photo()[100 : 100 + height, 200 : 200 + width]
    flat, bright = np.full_like(photo, 77), np.full_like(photo, 255)
    pairs = [
        (one_pixel_off(photo), photo),
        (photo, bright),
        (one_pixel_off(bright), bright),
        (flat, flat + 1),
        (flat, bright),
        (gradient(height, width), photo),
        (gradient(height, width), gradient(height, width) ^ 1),
        (saturated(height, width), bright),
        (saturated(height, width), one_pixel_off(saturated(height, width))),
    ]
    found = measure(batch(*(output for output, _ in pairs)), batch(*(target for _, target in pairs)), border)
    for row, (output, target) in zip(found.tolist(), pairs, strict=True):
        assert same(Quality(*row), reference(output, target, border))


@settings(max_examples=20)
@given(level=st.integers(0, 254))
def test_metrics_of_flat_images_match_closed_forms(level: int) -> None:
    """The MSE is 1, and SSIM reduces to its luminance term."""
    found = measured(np.full((12, 12, 3), level, np.uint8), np.full((12, 12, 3), level + 1, np.uint8))
    assert found.psnr_rgb == pytest.approx(20 * math.log10(255))
    c1 = 2.55**2
    expected = (2 * level * (level + 1) + c1) / (level**2 + (level + 1) ** 2 + c1)
    assert found.ssim_rgb == pytest.approx(expected, abs=1e-9)


def test_psnr_of_equal_images_is_infinite() -> None:
    photo = real_photo()
    assert measured(photo, photo.copy(), 4) == Quality(math.inf, math.inf, pytest.approx(1), pytest.approx(1))


def test_ssim_is_the_mean_over_channels() -> None:
    photo = real_photo()
    output = photo.copy()
    output[:, :, 1] = worse(photo, "blurred")[:, :, 1]
    green = reference_ssim(output[:, :, 1], photo[:, :, 1])
    assert green < 0.95 and measured(output, photo).ssim_rgb == pytest.approx((2 + green) / 3, abs=1e-6)


def test_metrics_of_an_image_depend_neither_on_the_batch_nor_on_the_layout() -> None:
    photo = real_photo()[:130, :90]
    outputs = batch(*(worse(photo, kind) for kind in KINDS))
    targets = batch(*[photo] * len(KINDS))
    before = outputs.clone(), targets.clone()
    together = measure(outputs, targets, 4)
    assert together.shape == (len(KINDS), 4) and together.dtype == torch.float64
    assert torch.equal(outputs, before[0]) and torch.equal(targets, before[1])
    for number, kind in enumerate(KINDS):
        assert tuple(together[number].tolist()) == astuple(measured(worse(photo, kind), photo, 4))
    assert torch.equal(measure(outputs.contiguous(), targets.contiguous(), 4), together)


def test_measure_leaves_the_number_of_threads_alone() -> None:
    """It uses threads of its own, and PyTorch's setting has parts for the process and for each thread."""

    def in_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        measure(batch(real_photo(), real_photo()), batch(real_photo(), real_photo()), 4)
        assert torch.get_num_threads() == 3 and in_new_thread() == 3
    finally:
        torch.set_num_threads(before)


def test_measure_ignores_the_border() -> None:
    photo = real_photo()[:40, :40]
    output = worse(photo, "noisy")
    changed = output.copy()
    changed[:4], changed[-4:], changed[:, :4], changed[:, -4:] = 0, 0, 0, 0
    assert measured(changed, photo, 4) == measured(output, photo, 4)
    assert measured(changed, photo, 3) != measured(output, photo, 3)


def images(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("outputs", "targets", "border", "message"),
    [
        (images(1, 3, 20, 20), images(1, 3, 20, 21), 0, r"equal shape, got \(1, 3, 20, 20\) and \(1, 3, 20, 21\)"),
        (images(2, 3, 20, 20), images(1, 3, 20, 20), 0, r"equal shape, got \(2, 3, 20, 20\) and \(1, 3, 20, 20\)"),
        (images(3, 20, 20), images(3, 20, 20), 0, r"expected N x 3 x H x W uint8, got \(3, 20, 20\) torch.uint8"),
        (images(1, 3, 20, 20, dtype=torch.float32), images(1, 3, 20, 20), 0, r"got \(1, 3, 20, 20\) torch.float32"),
        (images(1, 3, 20, 20), images(1, 3, 20, 20, dtype=torch.int8), 0, r"got \(1, 3, 20, 20\) torch.int8"),
        (images(1, 20, 20, 3), images(1, 20, 20, 3), 0, r"got \(1, 20, 20, 3\)"),
        (images(1, 3, 10, 20), images(1, 3, 10, 20), 0, "at least 11 px inside a border of 0 px, got 20 x 10 px"),
        (images(1, 3, 18, 40), images(1, 3, 18, 40), 4, "at least 11 px inside a border of 4 px, got 40 x 18 px"),
        (images(1, 3, 20, 20), images(1, 3, 20, 20), -1, "border of -1 px"),
    ],
)
def test_measure_refuses_invalid_images(
    outputs: torch.Tensor, targets: torch.Tensor, border: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(outputs, targets, border)


# ---- the mean over images


def test_mean_quality_averages_each_metric() -> None:
    a, b = Quality(20, 22, 0.5, 0.6), Quality(30, 33, 0.7, 0.9)
    assert mean_quality([a, b]) == Quality(25, 27.5, pytest.approx(0.6), pytest.approx(0.75))
    assert mean_quality([a]) == a


def test_mean_quality_ignores_infinite_psnr_of_some_images() -> None:
    exact, other = Quality(math.inf, math.inf, 1, 1), Quality(20, math.inf, 0.5, 1)
    assert mean_quality([exact, other]) == Quality(20, math.inf, 0.75, 1)
    assert mean_quality([exact, exact]) == exact


def test_mean_quality_refuses_an_empty_list() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        mean_quality([])
