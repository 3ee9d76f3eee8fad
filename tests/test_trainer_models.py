"""The networks: sizes, initialisation, training and receptive fields."""

import itertools

import pytest
import torch
from helpers import make_photo
from torch import Tensor, nn
from torch.nn import functional

from srshards.errors import UsageError
from srshards.imaging.bicubic import bicubic_down, bicubic_up
from trainer.evaluation.metrics import measure
from trainer.models import BuiltInSpec, Network, network_spec, num_parameters
from trainer.models.prelu import PReLU

NARROW = {
    "compact": BuiltInSpec("compact", 4, 12, 3),
    "compact, one more": BuiltInSpec("compact", 4, 8, 4),
    "rrdb": BuiltInSpec("rrdb", 4, 12, 1, 8),
}
NAMES = ("ultra_lite", "lite", "standard")
ALL_SCALES = [(name, scale) for name in NAMES for scale in ((1, 2, 3, 4) if name == "standard" else range(1, 9))]


def narrow(kind: str, scale: int) -> BuiltInSpec:
    spec = NARROW[kind]
    return BuiltInSpec(spec.architecture, scale, spec.features, spec.depth, spec.growth)


def test_every_architecture_of_this_package_is_tested() -> None:
    built_in = {name for name, network in Network.built_in.items() if network.__module__.startswith("trainer.")}
    assert {spec.architecture for spec in NARROW.values()} == built_in, "add a small one to NARROW"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [
        ("ultra_lite", 4, 52_968),
        ("lite", 4, 621_424),
        ("lite", 2, 600_652),
        ("standard", 4, 16_697_987),
        ("standard", 2, 16_697_987 + 64 * 9 * 9),  # 9 more input channels
        ("standard", 1, 16_697_987 + 64 * 45 * 9),
        ("standard", 3, 16_697_987 - 64 * 64 * 9 - 64),  # one upsampling layer less
    ],
)
def test_number_of_parameters(name: str, scale: int, count: int) -> None:
    network = network_spec(name, scale).build()
    assert num_parameters(network) == count == sum(shape.numel() for shape in network.spec.shapes().values())
    assert network.scale == scale and network.spec == network_spec(name, scale) and network.training
    assert all(parameter.is_contiguous() and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(("name", "scale"), ALL_SCALES)
def test_names_and_shapes_of_every_model(name: str, scale: int) -> None:
    spec = network_spec(name, scale)
    assert spec.name == name
    shapes = spec.shapes()
    first, last = ("body.0", f"body.{2 * spec.depth + 2}") if name != "standard" else ("conv_first", "conv_last")
    unshuffled = {1: 16, 2: 4}.get(scale, 1) if name == "standard" else 1
    assert shapes[f"{first}.weight"] == (spec.features, 3 * unshuffled, 3, 3)
    if name != "standard":
        assert shapes[f"{last}.weight"] == (3 * scale**2, spec.features, 3, 3)
    else:
        assert ("tail_3x.conv_last.weight" in shapes) == (scale == 3) == ("conv_last.weight" not in shapes)


@pytest.mark.parametrize(
    ("kind", "scale"), [*itertools.product(NARROW, (1, 2, 3, 4)), *(("compact", scale) for scale in (5, 6, 7, 8))]
)
def test_output_size_is_scale_times_the_input_size(kind: str, scale: int) -> None:
    network = narrow(kind, scale).build()
    for height, width in ((1, 1), (1, 6), (2, 3), (3, 2), (7, 5), (8, 12), (13, 4)):
        with torch.no_grad():
            output = network(noise(2, 3, height, width))
        assert output.shape == (2, 3, scale * height, scale * width), (height, width)
        assert output.dtype == torch.float32 and bool(output.isfinite().all())


@pytest.mark.parametrize(("kind", "scale"), list(itertools.product(NARROW, (1, 2, 3, 4))))
def test_gradients_reach_every_parameter(kind: str, scale: int) -> None:
    network = narrow(kind, scale).build()
    network(noise(1, 3, 9, 7)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


@pytest.mark.parametrize("kind", NARROW)
def test_initial_weights_depend_on_the_seed_only(kind: str) -> None:
    spec = NARROW[kind]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = spec.build(5).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    torch.manual_seed(2)
    again, other = spec.build(5).state_dict(), spec.build(6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in first:
        constant = name.endswith("bias") or first[name].ndim == 1  # biases and PReLU slopes are not random
        assert torch.equal(first[name], other[name]) == constant, name


@pytest.mark.parametrize("name", ["ultra_lite", "lite"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_compact_is_initialised_as_interpolation(name: str, scale: int) -> None:
    """An untrained network is within 1 dB of bicubic upscaling, or near the input at 1x.

    Except at the border, because convolutions pad with zeros.
    """
    hr = make_photo(96, 120, seed=1)
    lr = bicubic_down(hr, scale)
    with torch.no_grad():
        output = network_spec(name, scale).build()(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)
    found = output.mul(255).round().clamp(0, 255).to(torch.uint8)
    bicubic, target = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (bicubic_up(lr, scale), hr))
    psnr, psnr_bicubic = (measure(images, target, 3 * scale)[0, 0] for images in (found, bicubic))
    assert psnr > (30 if scale == 1 else psnr_bicubic - 1)


def test_initial_output_of_rrdb_is_near_zero_at_any_depth() -> None:
    for depth in (1, 23):
        with torch.no_grad():
            output = BuiltInSpec("rrdb", 4, 16, depth, 8).build()(noise(1, 3, 16, 16))
        assert float(output.abs().mean()) < 0.5, depth


@pytest.mark.parametrize("kind", NARROW)
def test_the_state_dict_restores_the_network(kind: str) -> None:
    trained, fresh = NARROW[kind].build(1), NARROW[kind].build(2)
    images = noise(1, 3, 6, 7)
    with torch.no_grad():
        assert not torch.equal(trained(images), fresh(images))
        fresh.load_state_dict(trained.state_dict())
        assert torch.equal(trained(images), fresh(images))


@pytest.mark.parametrize(("height", "width"), [(7, 10), (6, 9), (5, 5), (8, 11)])
@pytest.mark.parametrize("scale", [1, 2])
def test_indivisible_sizes_are_padded_by_reflection(scale: int, height: int, width: int) -> None:
    """As if the caller had padded the image by reflection at the bottom and right and cropped the output."""
    network, factor = narrow("rrdb", scale).build(), {1: 4, 2: 2}[scale]
    images = noise(1, 3, height, width)
    padded = functional.pad(images, (0, -width % factor, 0, -height % factor), "reflect")
    with torch.no_grad():
        expected = network(padded)[:, :, : scale * height, : scale * width]
        assert torch.equal(network(images), expected)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_single_pixel_is_padded_by_replication(scale: int) -> None:
    network, pixel = narrow("rrdb", scale).build(), noise(1, 3, 1, 1)
    with torch.no_grad():
        flat = network(pixel.expand(1, 3, 4, 4) if scale == 1 else pixel.expand(1, 3, 2, 2))
        assert torch.equal(network(pixel), flat[:, :, :scale, :scale])


def receptive_radius(spec: BuiltInSpec, side: int) -> int:
    """Return the largest distance in px at which an input pixel influences an output pixel."""
    network, middle = spec.build().double(), side // 2
    distance = 0
    for y, x in ((0, 0), (spec.scale - 1, spec.scale - 1)):
        for shift in range(spec.multiple_px):  # other positions in an unshuffled block
            images = noise(1, 3, side, side).double().requires_grad_()
            at = middle + shift
            network(images)[0, :, at * spec.scale + y, at * spec.scale + x].sum().backward()
            assert images.grad is not None
            rows, columns = images.grad.abs().sum((0, 1)).nonzero().unbind(1)
            distance = max(distance, int((rows - at).abs().max()), int((columns - at).abs().max()))
    return distance


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_margin_of_compact_is_its_receptive_radius(scale: int) -> None:
    for kind in ("compact", "compact, one more"):
        spec = narrow(kind, scale)
        assert receptive_radius(spec, 32) == spec.margin_px


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_margin_of_a_short_rrdb_covers_its_receptive_radius(scale: int) -> None:
    spec, factor = BuiltInSpec("rrdb", scale, 4, 1, 2), {1: 4, 2: 2}.get(scale, 1)
    radius = receptive_radius(spec, 200 // min(scale, 4) + 16)
    assert radius <= spec.margin_px < radius + 2 * factor
    assert spec.margin_px % factor == 0


def test_the_margins_of_the_models() -> None:
    assert [network_spec(name, 4).margin_px for name in NAMES] == [10, 18, 32]
    assert [network_spec("standard", scale).margin_px for scale in (1, 2, 3)] == [128, 64, 32]


def test_channels_last_and_bf16_give_nearly_the_same_output() -> None:
    for kind, scale in itertools.product(NARROW, (2, 3)):
        network, images = narrow(kind, scale).build(), noise(2, 3, 9, 8)
        with torch.no_grad():
            plain = network(images)
            network.to(memory_format=torch.channels_last)
            last = network(images.to(memory_format=torch.channels_last))
            with torch.autocast("cpu", torch.bfloat16):
                half = network(images)
        assert torch.allclose(last, plain, atol=1e-5)
        assert torch.allclose(half.float(), plain, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 24, 9, 7), (3, 5, 1, 1)])
def test_prelu_equals_that_of_pytorch(dtype: torch.dtype, layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    features, gradient = (noise(*shape, seed=seed).sub(0.5).to(dtype).to(memory_format=layout) for seed in (0, 1))
    features[0, 0, 0, 0] = 0
    results = []
    for module in (PReLU(shape[1]), nn.PReLU(shape[1])):
        with torch.no_grad():
            module.weight.copy_(torch.linspace(-0.5, 1.5, shape[1]))
        given = features.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            output = module(given)
        output.backward(gradient)
        results.append([output, given.grad, module.weight.grad])
        assert output.is_contiguous(memory_format=layout) and list(module.state_dict()) == ["weight"]
    for found, expected in zip(*results, strict=True):
        assert found.dtype is expected.dtype and torch.equal(found, expected)


def test_prelu_keeps_values_that_are_not_finite() -> None:
    features = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0]).view(1, 1, 2, 2)
    features = features.to(memory_format=torch.channels_last)
    with torch.no_grad():
        found, expected = PReLU(1)(features), nn.PReLU(1)(features)
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_output_of_compact_equals_shuffling_before_adding(scale: int) -> None:
    network, images = narrow("compact", scale).build(), noise(2, 3, 5, 7)
    for layout in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=layout)
        images = images.to(memory_format=layout)
        with torch.no_grad():
            details = functional.pixel_shuffle(network.body(images), scale)
            assert torch.equal(network(images), details + functional.interpolate(images, scale_factor=scale))


def test_unsupported_networks_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'big'; for all names, run `python -m trainer models`$"):
        network_spec("big", 4)
    with pytest.raises(
        UsageError,
        match=r"standard does not support 8x, only 1x, 2x, 3x, 4x; ultra_lite and lite support",
    ):
        network_spec("standard", 8)
    with pytest.raises(UsageError, match=r"lite does not support 9x, only 1x, 2x, 3x, 4x, 5x, 6x, 7x, 8x$"):
        network_spec("lite", 9)


def test_unnamed_networks_are_described() -> None:
    assert BuiltInSpec("compact", 2, 48, 12).name == "compact 48x12"
    assert BuiltInSpec("rrdb", 2, 16, 3, 8).name == "rrdb 16x3, growth 8"
