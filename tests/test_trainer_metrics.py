"""PSNR and SSIM compared with scikit-image and closed forms; losses compared with closed forms."""

import math

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
from trainer.evaluation.metrics import Quality, mean_quality, measure, psnr, ssim
from trainer.training.losses import LOSSES, charbonnier, l1

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


def reference_ssim(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(a, b, channel_axis=2 if a.ndim == 3 else None, **options))


# ---- PSNR and SSIM


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_match_scikit_image(kind: str) -> None:
    photo = real_photo()[:301, :257]  # several bands of rows, the last one incomplete
    output = worse(photo, kind)
    assert psnr(output, photo) == pytest.approx(peak_signal_noise_ratio(photo, output, data_range=255), abs=1e-6)
    assert ssim(output, photo) == pytest.approx(reference_ssim(photo, output), abs=1e-9)
    y, target_y = luma_studio_range(output), luma_studio_range(photo)
    assert psnr(y, target_y) == pytest.approx(peak_signal_noise_ratio(target_y, y, data_range=255), abs=1e-6)
    assert ssim(y, target_y) == pytest.approx(reference_ssim(target_y, y), abs=1e-9)


@settings(max_examples=40)
@given(
    pair=st.tuples(st.integers(11, 90), st.integers(11, 30)).flatmap(
        lambda size: st.tuples(*2 * [arrays.arrays(np.uint8, (*size, 3), elements=st.integers(0, 255))])
    )
)
def test_metrics_match_scikit_image_on_random_pixels(pair: tuple[Pixels, Pixels]) -> None:
    a, b = pair
    assert ssim(a, b) == pytest.approx(reference_ssim(a, b), abs=1e-9)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12) and psnr(a, b) == psnr(b, a)
    if not np.array_equal(a, b):
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-6)


@settings(max_examples=20)
@given(level=st.integers(0, 254))
def test_metrics_of_flat_images_match_closed_forms(level: int) -> None:
    """The MSE is 1, and SSIM reduces to its luminance term."""
    a, b = np.full((12, 12, 3), level, np.uint8), np.full((12, 12, 3), level + 1, np.uint8)
    assert psnr(a, b) == pytest.approx(20 * math.log10(255))
    c1 = 2.55**2
    assert ssim(a, b) == pytest.approx((2 * level * (level + 1) + c1) / (level**2 + (level + 1) ** 2 + c1), abs=1e-9)


def test_psnr_of_equal_images_is_infinite() -> None:
    photo = real_photo()
    assert measure(photo, photo.copy(), 4) == Quality(math.inf, math.inf, pytest.approx(1), pytest.approx(1))


def test_ssim_is_the_mean_over_channels() -> None:
    photo = real_photo()
    output = photo.copy()
    output[:, :, 1] = worse(photo, "blurred")[:, :, 1]
    green = ssim(output[:, :, 1], photo[:, :, 1])
    assert green < 0.95 and ssim(output, photo) == pytest.approx((2 + green) / 3, abs=1e-6)


def test_measure_does_not_modify_its_arguments() -> None:
    photo, output = real_photo(), worse(real_photo(), "noisy")
    before = photo.copy(), output.copy()
    measure(output, photo, 4)
    ssim(luma_studio_range(output).astype(np.float32), luma_studio_range(photo).astype(np.float32))
    assert np.array_equal(photo, before[0]) and np.array_equal(output, before[1])


# ---- measure


@pytest.mark.parametrize("border", [0, 1, 4])
def test_measure_returns_the_four_metrics_inside_the_border(border: int) -> None:
    photo = real_photo()[:80, :60]
    output = worse(photo, "blurred")
    inside = (slice(border, 80 - border), slice(border, 60 - border))
    a, b = np.ascontiguousarray(output[inside]), np.ascontiguousarray(photo[inside])
    assert measure(output, photo, border) == Quality(
        psnr(a, b),
        psnr(luma_studio_range(a), luma_studio_range(b)),
        ssim(a, b),
        ssim(luma_studio_range(a), luma_studio_range(b)),
    )


def test_measure_ignores_the_border() -> None:
    photo = real_photo()[:40, :40]
    output = worse(photo, "noisy")
    changed = output.copy()
    changed[:4], changed[-4:], changed[:, :4], changed[:, -4:] = 0, 0, 0, 0
    assert measure(changed, photo, 4) == measure(output, photo, 4)
    assert measure(changed, photo, 3) != measure(output, photo, 3)


def pixels(*shape: int, dtype: type = np.uint8) -> NDArray[np.generic]:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("output", "target", "border", "message"),
    [
        (pixels(20, 20, 3), pixels(20, 21, 3), 0, r"equal shape and dtype, got \(20, 20, 3\) uint8 and \(20, 21, 3\)"),
        (pixels(20, 20), pixels(20, 20), 0, r"expected H x W x 3 uint8, got \(20, 20\) uint8"),
        (pixels(20, 20, 3, dtype=np.float32), pixels(20, 20, 3), 0, r"uint8, got \(20, 20, 3\) float32"),
        (pixels(20, 20, 3), pixels(20, 20, 3, dtype=np.float32), 0, r"uint8, got \(20, 20, 3\) float32"),
        (pixels(3, 20, 20), pixels(3, 20, 20), 0, r"got \(3, 20, 20\)"),
        (pixels(10, 20, 3), pixels(10, 20, 3), 0, "expected at least 11 px inside a border of 0 px, got 20 x 10 px"),
        (pixels(18, 40, 3), pixels(18, 40, 3), 4, "expected at least 11 px inside a border of 4 px, got 40 x 18 px"),
        (pixels(20, 20, 3), pixels(20, 20, 3), -1, "border of -1 px"),
    ],
)
def test_measure_refuses_invalid_images(output: Pixels, target: Pixels, border: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(output, target, border)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match=r"SSIM needs 11 x 11 px, got 10 x 30 px"):
        ssim(pixels(30, 10, 3), pixels(30, 10, 3))
    assert ssim(pixels(11, 11, 3), pixels(11, 11, 3)) == pytest.approx(1)


def test_psnr_and_ssim_refuse_different_shapes_and_dtypes() -> None:
    for figure in (psnr, ssim):
        with pytest.raises(ValueError, match="equal shape"):
            figure(pixels(20, 20, 3), pixels(20, 20, 1))
        with pytest.raises(ValueError, match=r"uint8 and .* float32"):
            figure(pixels(20, 20, 3), pixels(20, 20, 3, dtype=np.float32))


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


# ---- losses


def test_losses_match_closed_forms() -> None:
    output, target = torch.tensor([[0.0, 0.5], [1.0, 0.25]]), torch.tensor([[0.0, 0.25], [0.0, 0.25]])
    assert l1(output, target).item() == pytest.approx(1.25 / 4)
    expected = (1e-3 + math.sqrt(0.0625 + 1e-6) + math.sqrt(1 + 1e-6) + 1e-3) / 4
    assert charbonnier(output, target).item() == pytest.approx(expected, rel=1e-6)
    assert LOSSES["l1"] is l1 and LOSSES["charbonnier"] is charbonnier and len(LOSSES) == 2


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_losses_are_float32_under_autocast(name: str, dtype: torch.dtype) -> None:
    """A small error averaged over a million values is lost in half precision."""
    target = torch.full((1, 3, 600, 600), 0.5)
    output = (target + 1 / 256).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](output, target)
    assert loss.dtype == torch.float32 and loss.shape == ()
    expected = {"l1": 1 / 256, "charbonnier": math.sqrt(1 / 256**2 + 1e-6)}[name]
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert output.grad is not None and torch.isfinite(output.grad).all()
    assert LOSSES[name](output, target.to(dtype)).dtype == torch.float32


def test_charbonnier_has_zero_gradient_at_zero_error() -> None:
    output = torch.zeros(1, 3, 4, 4, requires_grad=True)
    charbonnier(output, torch.zeros(1, 3, 4, 4)).backward()
    assert output.grad is not None and (output.grad == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_refuse_broadcasting(name: str) -> None:
    with pytest.raises(ValueError, match=r"equal shape, got \(2, 3, 8, 8\) and \(2, 1, 8, 8\)"):
        LOSSES[name](torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))
