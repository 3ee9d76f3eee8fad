"""Losses without weights files: values by formulas in NumPy, gradients, precision, bad shapes, and use on a GPU."""

import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage, signal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.loss_table import LOSSES
from trainer.losses import Loss, build_loss
from trainer.losses.adversarial import ADVERSARIAL_LOSSES
from trainer.losses.pixel import charbonnier, l1
from trainer.models.discriminators import DISCRIMINATORS
from trainer.training import config
from trainer.weights_table import WEIGHTS_FILES

CPU, META = torch.device("cpu"), torch.device("meta")
PAGE = Path(__file__).parent.parent / "docs/reference/losses.md"
NAMES = [name for name in LOSSES if not LOSSES[name].weights]
Images = NDArray[np.float64]


def images(name: str, seed: int = 0, number: int = 2) -> tuple[Tensor, ...]:
    """Return output, target and, where the loss takes it, the EMA network's output: float64, no edge even or equal."""
    generator = torch.Generator().manual_seed(seed)
    height = max(LOSSES[name].min_px, 23) + LOSSES[name].min_px % 2
    shape = (number, 3, height, height + 14)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.avg_pool2d(target, 3, 1, 1)  # neighbours are alike
    noise = (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    output, ema_output = (target + one for one in noise)
    return (output, target, ema_output) if LOSSES[name].uses_ema else (output, target)


def build(name: str, dtype: torch.dtype = torch.float32) -> Loss:
    loss = build_loss(name, CPU)
    return loss.to(dtype) if isinstance(loss, torch.nn.Module) else loss


# ---- values


def gaussian_window(size: int, sigma: float) -> Images:
    taps = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    window = np.outer(taps, taps)
    return window / window.sum()


def in_windows(plane: Images, window: Images) -> Images:
    return signal.convolve2d(plane, window, mode="valid")


def ms_ssim(x: Images, y: Images) -> float:
    """Of two planes, as published: by variances and the covariance."""
    window, c1, c2 = gaussian_window(11, 1.5), 0.01**2, 0.03**2
    product = 1.0
    for exponent in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        mean_x, mean_y = in_windows(x, window), in_windows(y, window)
        var_x, var_y = in_windows(x * x, window) - mean_x**2, in_windows(y * y, window) - mean_y**2
        covariance = in_windows(x * y, window) - mean_x * mean_y
        cs = (2 * covariance + c2) / (var_x + var_y + c2)
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        product *= (luminance * cs if exponent == 0.1333 else cs).mean() ** exponent
        height, width = (edge // 2 * 2 for edge in x.shape)
        x, y = (sum(one[i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)) / 4 for one in (x, y))
    return product


def expected_msssim(output: Images, target: Images) -> float:
    planes = zip(output.reshape(-1, *output.shape[2:]), target.reshape(-1, *target.shape[2:]), strict=True)
    return float(np.mean([1 - ms_ssim(*pair) for pair in planes]))


def expected_fft(output: Images, target: Images) -> float:
    spectra = [np.fft.fft2(one, norm="ortho") for one in (output, target)]
    difference = spectra[0] - spectra[1]
    return float(np.mean([np.abs(difference.real), np.abs(difference.imag)]))


def expected_focal_frequency(output: Images, target: Images) -> float:
    distance = np.abs(np.fft.fft2(output, norm="ortho") - np.fft.fft2(target, norm="ortho"))
    return float((distance / distance.max((2, 3), keepdims=True) * distance**2).mean())


def ycc(rgb: Images) -> Images:
    """Return Y', Pb and Pr of ITU-R BT.709, sections 3.2 and 3.3, of N x 3 x H x W, in the first dimension."""
    red, green, blue = np.moveaxis(rgb, 1, 0)
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return np.stack([y, (blue - y) / 1.8556, (red - y) / 1.5748])


def blurred_difference(output: Images, target: Images) -> Images:
    planes = [ycc(one).reshape(-1, *one.shape[2:]) for one in (output, target)]
    blurred = [np.stack([in_windows(plane, gaussian_window(21, 3)) for plane in one]) for one in planes]
    return np.abs(blurred[0] - blurred[1]).reshape(3, -1)


def sobel(planes: Images, axis: int) -> Images:
    return np.stack([[ndimage.sobel(plane, axis) for plane in image] for image in planes])


def expected_gradient(output: Images, target: Images) -> float:
    gradients = [[sobel(one, axis)[..., 1:-1, 1:-1] / 8 for axis in (0, 1)] for one in (output, target)]
    return float(np.abs(np.subtract(*gradients)).mean())


def expected_ldl(output: Images, target: Images, ema_output: Images) -> float:
    residual, ema_residual = (np.abs(target - one).sum(1) for one in (output, ema_output))
    padded = np.pad(residual, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    local = sliding_window_view(padded, (7, 7), (1, 2)).var((3, 4), ddof=1)
    weight = local * residual.var((1, 2), ddof=1, keepdims=True) ** 0.2
    weight[residual < ema_residual] = 0
    return float(np.abs(weight[:, None] * output - weight[:, None] * target).mean())


EXPECTED: dict[str, Callable[..., float]] = {
    "l1": lambda output, target: np.abs(output - target).mean(),
    "charbonnier": lambda output, target: np.sqrt((output - target) ** 2 + 1e-6).mean(),
    "msssim": expected_msssim,
    "fft": expected_fft,
    "focal_frequency": expected_focal_frequency,
    "luma": lambda output, target: blurred_difference(output, target)[0].mean(),
    "colour": lambda output, target: blurred_difference(output, target)[1:].mean(),
    "gradient": expected_gradient,
    "ldl": expected_ldl,
}


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_formulas(name: str) -> None:
    assert name in EXPECTED, f"add {name!r} to EXPECTED"
    given = images(name)
    expected = EXPECTED[name](*(one.numpy() for one in given))
    assert expected > 1e-5
    assert build(name, torch.float64)(*given).item() == pytest.approx(expected, rel=1e-6)
    for layout in (torch.contiguous_format, torch.channels_last):
        loss = build(name)(*(one.float().contiguous(memory_format=layout) for one in given))
        assert loss.shape == () and loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("width", [24, 25])
def test_both_halves_of_a_spectrum_count(width: int) -> None:
    output, target = (one[..., :width] for one in images("fft"))
    for name in ("fft", "focal_frequency"):
        expected = EXPECTED[name](output.numpy(), target.numpy())
        assert build(name)(output, target).item() == pytest.approx(expected, rel=1e-9)


def test_pixel_losses_by_hand() -> None:
    output, target = torch.tensor([[0.0, 0.5], [1.0, 0.25]]), torch.tensor([[0.0, 0.25], [0.0, 0.25]])
    assert l1(output, target).item() == pytest.approx(1.25 / 4)
    expected = (1e-3 + math.sqrt(0.0625 + 1e-6) + math.sqrt(1 + 1e-6) + 1e-3) / 4
    assert charbonnier(output, target).item() == pytest.approx(expected, rel=1e-6)


def test_luma_and_colour_ignore_each_other_and_detail() -> None:
    target = torch.full((1, 3, 32, 32), 0.5)
    brighter = target + 0.1
    assert build("luma")(brighter, target).item() == pytest.approx(0.1)
    assert build("colour")(brighter, target).item() == pytest.approx(0, abs=1e-7)
    bluer = target + torch.tensor([0, -0.0722, 0.7152]).view(3, 1, 1) / 10
    assert build("luma")(bluer, target).item() == pytest.approx(0, abs=1e-7)
    assert build("colour")(bluer, target).item() == pytest.approx((0.07152 / 1.8556) / 2, rel=1e-5)
    checks = target + 0.1 * (1 - 2 * (torch.arange(32) % 2))
    assert build("luma")(checks, target) < 1e-4 < l1(checks, target)


def test_ms_ssim_is_accurate_in_flat_areas() -> None:
    """From variances in float32, most of the loss would be rounding here."""
    target = torch.full((1, 3, 176, 176), 0.97)
    output = target + 1e-3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    expected = expected_msssim(output.double().numpy(), target.double().numpy())
    assert build("msssim")(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_ms_ssim_of_opposite_images() -> None:
    """Their contrasts are negative at every scale, of which no power exists."""
    target = images("msssim")[1].float()
    output = (1 - target).requires_grad_()
    loss = build("msssim")(output, target)
    loss.backward()
    assert 0.9 < loss.item() < 1 and output.grad is not None and output.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_equal_images(name: str) -> None:
    """The loss has its minimum, and a finite gradient."""
    _, target, *_ = (one.float() for one in images(name))
    output = target.clone().requires_grad_()
    loss = build(name)(output, *[target] * (len(images(name)) - 1))
    loss.backward()
    assert loss.item() == (pytest.approx(1e-3) if name == "charbonnier" else 0)
    assert output.grad is not None and output.grad.isfinite().all()
    if name != "charbonnier":
        assert build(name)(*(one.float() for one in images(name))) > 0


def test_charbonnier_has_zero_gradient_at_zero_error() -> None:
    output = torch.zeros(1, 3, 4, 4, requires_grad=True)
    charbonnier(output, torch.zeros(1, 3, 4, 4)).backward()
    assert output.grad is not None and (output.grad == 0).all()


# ---- gradients


@pytest.mark.parametrize("name", [name for name in NAMES if name != "focal_frequency"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss = build(name, torch.float64)
    output, *references = images(name, number=1)
    assert torch.autograd.gradcheck(lambda one: loss(one, *references), output.requires_grad_(), fast_mode=True)


def test_the_weights_of_focal_frequency_are_constant() -> None:
    output, target = images("focal_frequency")
    build("focal_frequency")(output.requires_grad_(), target).backward()
    spectrum = np.fft.fft2((output.detach() - target).numpy(), norm="ortho")
    weight = np.abs(spectrum) / np.abs(spectrum).max((2, 3), keepdims=True)
    expected = 2 * np.fft.ifft2(weight * spectrum, norm="ortho").real / output.numel()
    np.testing.assert_allclose(output.grad, expected, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_to_the_output_only(name: str) -> None:
    given = [one.requires_grad_() for one in images(name)]
    loss = build(name, torch.float64)
    loss(*given).backward()
    assert [one.grad is not None for one in given] == [True] + [False] * (len(given) - 1)
    assert not isinstance(loss, torch.nn.Module) or not any(True for _ in loss.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_are_independent(name: str) -> None:
    """So that a batch divided among micro-batches or ranks has the same gradients."""
    given, loss = images(name), build(name, torch.float64)
    single = [loss(*(one[number : number + 1] for one in given)).item() for number in range(2)]
    assert loss(*given).item() == pytest.approx(sum(single) / 2, rel=1e-12)


# ---- precision


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_for_half_precision_and_within_autocast(name: str, dtype: torch.dtype) -> None:
    output, *references = (one.to(dtype) for one in images(name))
    loss = build(name)
    expected = loss(output.float(), *(one.float() for one in references))
    output.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(output, *references)
    found.backward()
    assert found.dtype == torch.float32 and found == expected
    assert output.grad is not None and output.grad.dtype == dtype and output.grad.isfinite().all()


@pytest.mark.parametrize("name", ["l1", "charbonnier"])
def test_small_errors_of_many_pixels(name: str) -> None:
    """A small error averaged over a million values is lost in half precision."""
    target = torch.full((1, 3, 600, 600), 0.5)
    output = (target + 1 / 256).bfloat16()
    expected = {"l1": 1 / 256, "charbonnier": math.sqrt(1 / 256**2 + 1e-6)}[name]
    assert build(name)(output, target).item() == pytest.approx(expected, rel=1e-4)


# ---- bad input


@pytest.mark.parametrize("name", NAMES)
def test_unsuitable_shapes(name: str) -> None:
    loss = build(name)
    good = [one.float() for one in images(name)]
    with pytest.raises(ValueError, match=re.escape(f"equal shape, got {tuple(good[0].shape)} and (2, 1, 8, 8)")):
        loss(*good[:-1], torch.zeros(2, 1, 8, 8))
    if name in ("l1", "charbonnier"):
        return
    for shape in ((3, 200, 200), (2, 1, 200, 200)):
        with pytest.raises(ValueError, match=re.escape(f"expected images of N x 3 x H x W, got {shape}")):
            loss(*[torch.zeros(shape)] * len(good))
    min_px = LOSSES[name].min_px
    loss(*[torch.zeros(1, 3, min_px, min_px)] * len(good))
    if min_px > 1:
        message = f"{name} needs patches of at least {min_px} px, got {min_px + 3} x {min_px - 1} px"
        with pytest.raises(ValueError, match=message):
            loss(*[torch.zeros(1, 3, min_px - 1, min_px + 3)] * len(good))


# ---- on a GPU


class OnDevice(TorchDispatchMode):
    """Refuses tensors of the CPU: copying from them or to them would wait, and a CUDA graph would not copy again."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in (*args, result):
            assert getattr(value, "device", META) == META, func
        return result


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device meta has shapes but no values, so that reading a value is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which that device does not have
    output, *references = (one.float().to(META) for one in images(name))
    loss = build_loss(name, META)
    with OnDevice():
        loss(output.requires_grad_(), *references).backward()
    assert output.grad is not None


def test_waits_are_detected() -> None:
    with OnDevice(), pytest.raises(AssertionError):
        torch.zeros(3, device=META) * torch.tensor(0.1)
    with OnDevice(), pytest.raises(RuntimeError, match="meta"):
        torch.zeros(3, device=META).sum().item()


@pytest.mark.slow
def test_all_compile_without_graph_breaks() -> None:
    given = {name: [one.float() for one in images(name)] for name in NAMES}
    losses = {name: build(name) for name in NAMES}

    def total(**images: list[Tensor]) -> Tensor:
        return torch.stack([losses[name](*images[name]) for name in NAMES])

    assert torch.equal(torch.compile(total, fullgraph=True, dynamic=False, backend="eager")(**given), total(**given))


# ---- documentation


def rows_of(heading: str) -> dict[str, list[str]]:
    """Return the rows of the page's table with this heading of the first column, by name."""
    table = PAGE.read_text("utf-8").split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row for row in rows}


def test_the_page_has_the_losses_of_the_table() -> None:
    table = rows_of("`--loss`")
    assert {name: row[3] for name, row in table.items()} == {name: f"{one.min_px} px" for name, one in LOSSES.items()}
    for name in WEIGHTS_FILES:
        assert [loss for loss in table if f"`{name}`" in table[loss][4]] == [
            loss for loss in LOSSES if name in LOSSES[loss].weights
        ]


def test_the_page_has_all_adversarial_losses_and_discriminators() -> None:
    assert list(rows_of("`--gan`")) == list(ADVERSARIAL_LOSSES) == list(config.GAN_LOSSES)
    guessing = re.findall(r"([\d.]+)\s\(`(\w+)`\)", PAGE.read_text("utf-8"))
    assert guessing == [(f"{round(loss.guessing, 3):g}", name) for name, loss in ADVERSARIAL_LOSSES.items()]
    table = rows_of("`--discriminator`")
    assert list(table) == list(DISCRIMINATORS) == list(config.DISCRIMINATORS)
    for name, row in table.items():
        parameters = sum(one.numel() for one in DISCRIMINATORS[name].constructor().parameters())
        assert row[2] == f"{parameters:,}"
