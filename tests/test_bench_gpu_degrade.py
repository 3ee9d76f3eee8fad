"""The benchmark of the degradation on a GPU, run on the CPU: its steps against OpenCV and Pillow, and its figures."""

import io
import math
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from torch.autograd import DeviceType

from benchmarks.gpu import degrade as benchmark
from benchmarks.gpu.degradation import FIRST, KERNEL_PX, SECOND, Degradation, blur, draw_blurs, draw_sinc, photon_noise
from benchmarks.gpu.jpeg import Jpeg
from shardgen.degradation import kernels
from tests.helpers import make_photo

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int, height: int, width: int) -> torch.Tensor:
    """count x 3 x height x width uint8."""
    images = np.stack([make_photo(height, width, number) for number in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


# ---- blur kernels


def test_kernels_sum_to_1_in_sizes_from_7_to_21() -> None:
    drawn = draw_blurs(200, FIRST, generator())
    assert drawn.shape == (200, KERNEL_PX, KERNEL_PX) and drawn.dtype == torch.float32
    assert drawn.sum(dim=(1, 2)).numpy() == pytest.approx(np.ones(200), abs=1e-5)
    assert torch.allclose(drawn, drawn.flip(1, 2), atol=1e-6)  # centred
    assert {int((sinc[10] != 0).sum()) for sinc in draw_sinc(200, (1.0, 1.0), generator())} == set(range(7, 22, 2))


def test_second_order_blurs_less() -> None:
    line = torch.arange(KERNEL_PX) - KERNEL_PX // 2

    def variances(drawn: torch.Tensor) -> torch.Tensor:
        return (drawn.sum(dim=1) * line**2).sum(dim=1)

    first, second = (variances(draw_blurs(500, order, generator())) for order in (FIRST, SECOND))
    assert second.median() < first.median() / 2


def test_sinc_kernels_are_those_of_the_cutoff() -> None:
    drawn = draw_sinc(8, (math.pi, math.pi), generator())  # nothing left to draw but the size
    for kernel in drawn.numpy():
        size = int((kernel[10] != 0).sum())
        outside = (KERNEL_PX - size) // 2
        expected = np.pad(kernels.sinc(size, math.pi), outside)
        assert kernel == pytest.approx(expected, abs=1e-6)


def test_kernels_of_a_batch() -> None:
    drawn = Degradation(CPU, 32, 4, seed=0).draw_kernels(300)
    assert all(each.shape == (300, KERNEL_PX, KERNEL_PX) and each.dtype == torch.float32 for each in drawn)
    pulses = (drawn.final.flatten(1) != 0).sum(dim=1) == 1
    assert 0.1 < pulses.float().mean() < 0.3  # no final blur with probability 0.2


# ---- steps


def test_blur_is_opencvs_filter_of_each_image() -> None:
    images, drawn = photos(3, 40, 52).float() / 255, draw_blurs(3, FIRST, generator())
    found = blur(images, drawn).permute(0, 2, 3, 1).numpy()
    for image, kernel, blurred in zip(images.permute(0, 2, 3, 1).numpy(), drawn.numpy(), found, strict=True):
        expected = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        assert blurred == pytest.approx(expected, abs=1e-5)


# Mean absolute differences in grey levels. At 50 both have the tables of the standard; elsewhere libjpeg rounds them.
# The rest is due to libjpeg's rounding of samples, which changes some coefficients by a step.
@pytest.mark.parametrize(("qualities", "at_most"), [((50, 50), 1.3), ((30, 75), 2.0), ((90, 95), 2.0)])
def test_jpeg_is_close_to_pillows(qualities: tuple[int, int], at_most: float) -> None:
    images = photos(2, 64, 96)
    found = 255 * Jpeg(CPU)(images.float() / 255, torch.tensor(qualities, dtype=torch.float32))
    for image, quality, compressed in zip(images, qualities, found, strict=True):
        # Decoded with replicated chroma, which Pillow cannot do: it always interpolates.
        decoded = simplejpeg.decode_jpeg(pillow_jpeg(image, quality), "RGB", fastupsample=True)
        expected = torch.tensor(decoded).permute(2, 0, 1).float()
        difference, lost = (float((other - expected).abs().mean()) for other in (compressed, image))
        assert difference < at_most and difference < lost / 3


def test_jpeg_of_grey_images_is_close_to_pillows() -> None:
    images = photos(2, 64, 96)[:, :1].expand(2, 3, 64, 96)
    found = 255 * Jpeg(CPU)(images.float() / 255, torch.tensor([50.0, 50.0]))
    for image, compressed in zip(images, found, strict=True):
        expected = np.array(Image.open(io.BytesIO(pillow_jpeg(image, 50)))).transpose(2, 0, 1)
        assert np.abs(compressed.numpy() - expected).mean() < 0.6


def test_jpeg_of_any_size_keeps_it() -> None:
    images = photos(2, 37, 50).float() / 255
    found = Jpeg(CPU)(images, torch.tensor([95.0, 30.0]))
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1
    near, far = (found - images).abs().mean(dim=(1, 2, 3)).tolist()
    assert near < far


def pillow_jpeg(image: torch.Tensor, quality: int) -> bytes:
    """A JPEG file of an image, 3 x H x W uint8, with 4:2:0 chroma."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=quality, subsampling=2)
    return file.getvalue()


def test_photon_noise_depends_on_the_number_of_grey_levels() -> None:
    six = torch.full((1, 3, 200, 200), 102 / 255)
    six[0, 0, 0, :5] = torch.tensor([0.0, 0.2, 0.6, 0.8, 1.0])
    all_levels = (torch.arange(3 * 200 * 200) % 256 / 255).reshape(1, 3, 200, 200)
    noise = photon_noise(torch.cat((six, all_levels)), generator())
    assert noise.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0], abs=0.005)
    variances = [float(images.mean()) / photons for images, photons in ((six, 8), (all_levels, 256))]
    assert noise.var(dim=(1, 2, 3)).tolist() == pytest.approx(variances, rel=0.05)
    counts = 8 * (noise[0] + six[0])
    assert torch.allclose(counts, counts.round(), atol=1e-4)


# ---- the whole degradation


@pytest.mark.parametrize(("scale", "patch"), [(4, 32), (2, 64)])
def test_pairs_have_their_shapes_and_ranges(scale: int, patch: int) -> None:
    degrade, hr = Degradation(CPU, patch, scale, seed=1), photos(2, 96, 96)
    for _ in range(6):  # several factors, noises and orders
        gt, lq = degrade(hr, degrade.draw_kernels(2))
        assert gt.shape == (2, 3, patch, patch) and lq.shape == (2, 3, patch // scale, patch // scale)
        assert gt.dtype == lq.dtype == torch.float32 and gt.is_contiguous() and lq.is_contiguous()
        assert all(images.min() >= 0 and images.max() <= 1 for images in (gt, lq))
        assert torch.allclose(255 * lq, (255 * lq).round(), atol=1e-4)


def test_lq_is_aligned_with_gt() -> None:
    degrade, hr = Degradation(CPU, 64, 4, seed=2), photos(4, 96, 96)
    own, other = 0.0, 0.0
    for _ in range(6):
        gt, lq = degrade(hr, degrade.draw_kernels(4))
        small = torch.nn.functional.avg_pool2d(gt, 4)
        own += float((small - lq).abs().mean())
        other += float((small.flip(2, 3) - lq).abs().mean())
    assert own < other / 1.5


def test_gt_is_a_crop_of_hr() -> None:
    hr = torch.arange(96 * 96).remainder(251).to(torch.uint8).reshape(1, 1, 96, 96).repeat(1, 3, 1, 1)
    degrade = Degradation(CPU, 32, 4, seed=3)
    gt, _ = degrade(hr, degrade.draw_kernels(1))
    windows = hr[0, 0].unfold(0, 32, 4).unfold(1, 32, 4)
    assert (windows == (255 * gt[0, 0]).round()).all(dim=3).all(dim=2).sum() >= 1


def test_draws_follow_from_the_seed() -> None:
    hr = photos(2, 96, 96)

    def three(seed: int) -> torch.Tensor:
        degrade = Degradation(CPU, 32, 4, seed)
        return torch.stack([degrade(hr, degrade.draw_kernels(2))[1] for _ in range(3)])

    first = three(5)
    assert torch.equal(first, three(5)) and not torch.equal(first, three(6))
    assert not torch.equal(first[0], first[1])


# ---- measuring


def test_batches_are_measured() -> None:
    (found,) = benchmark.measure_degradation(
        batch=2, patch=32, scale=4, crop=96, device="cpu", seconds=0.01, count_launches=True
    )
    assert found["batch"] == 2 and found["peak_memory_bytes"] > 0 and found["draw_ms"] > 0
    assert found["launches"] == {"unavailable": "no CUDA device"}
    for name in ("prepared", "drawn"):
        ms, rates = found["ms_per_batch"][name], found["patches_per_second"][name]
        assert len(ms["rounds"]) == len(found["batches"][name]) == 3 and min(found["batches"][name]) >= 1
        assert rates["median"] == pytest.approx(2000 / ms["median"], rel=0.01, abs=0.1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((33, 96), "multiples of 4 px"),
        ((96, 92), "the patch within the crop"),
        ((32, 72), "images of 10 px are too small for kernels of 21 px"),
    ],
)
def test_invalid_sizes_are_reported(sizes: tuple[int, int], message: str) -> None:
    patch, crop = sizes
    with pytest.raises(ValueError, match=message):
        next(
            benchmark.measure_degradation(
                batch=1, patch=patch, scale=4, crop=crop, device="cpu", seconds=0.01, count_launches=True
            )
        )


def test_launches_are_those_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(us: float, where: DeviceType) -> Any:
        return SimpleNamespace(device_type=where, time_range=SimpleNamespace(elapsed_us=lambda: us))

    class Profile:
        def __init__(self, activities: object) -> None:
            steps.clear()

        def __enter__(self) -> "Profile":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def events(self) -> list[Any]:
            return [event(300, DeviceType.CUDA), event(100, DeviceType.CUDA), event(9, DeviceType.CPU)] * len(steps)

    steps: list[int] = []
    monkeypatch.setattr(benchmark, "profile", Profile)
    monkeypatch.setattr(benchmark, "synchronise", lambda device: None)
    found = benchmark._launches(lambda: steps.append(1), torch.device("cuda"))
    assert found == {"per_batch": 2, "ms_per_batch": 0.4}
    assert "saw no kernels" in benchmark._launches(lambda: None, torch.device("cuda"))["unavailable"]
