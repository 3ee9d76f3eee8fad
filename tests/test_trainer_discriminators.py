"""The discriminators: layout and arithmetic of Real-ESRGAN's, spectral normalisation, sizes, initial weights."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from srshards.errors import UsageError
from trainer.models import network_spec
from trainer.models.discriminators import (
    DISCRIMINATORS,
    PatchGan,
    UNet,
    build_discriminator,
    load_discriminator,
)
from trainer.models.dunet import DUnet, DySample
from trainer.models.spectral_norm import Discriminator, SpectralConv2d, built
from trainer.models.weights import save_weights

SMALL = {"unet": partial(UNet, 8), "patchgan": partial(PatchGan, 8), "dunet": partial(DUnet, 8)}

# Of RealESRGAN_x4plus_netD.pth and RealESRGAN_x2plus_netD.pth, below the key `params`.
PUBLISHED = {
    "conv0.weight": (64, 3, 3, 3),
    "conv0.bias": (64,),
    "conv1.weight_orig": (128, 64, 4, 4),
    "conv1.weight_u": (128,),
    "conv1.weight_v": (1024,),
    "conv2.weight_orig": (256, 128, 4, 4),
    "conv2.weight_u": (256,),
    "conv2.weight_v": (2048,),
    "conv3.weight_orig": (512, 256, 4, 4),
    "conv3.weight_u": (512,),
    "conv3.weight_v": (4096,),
    "conv4.weight_orig": (256, 512, 3, 3),
    "conv4.weight_u": (256,),
    "conv4.weight_v": (4608,),
    "conv5.weight_orig": (128, 256, 3, 3),
    "conv5.weight_u": (128,),
    "conv5.weight_v": (2304,),
    "conv6.weight_orig": (64, 128, 3, 3),
    "conv6.weight_u": (64,),
    "conv6.weight_v": (1152,),
    "conv7.weight_orig": (64, 64, 3, 3),
    "conv7.weight_u": (64,),
    "conv7.weight_v": (576,),
    "conv8.weight_orig": (64, 64, 3, 3),
    "conv8.weight_u": (64,),
    "conv8.weight_v": (576,),
    "conv9.weight": (1, 64, 3, 3),
    "conv9.bias": (1,),
}


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> Discriminator:
    """Each of the discriminators, with an eighth of the channels."""
    return built(SMALL[request.param], 1)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random values in the published layout; u and v are near the singular vectors."""
    draw = torch.Generator().manual_seed(0)
    state = {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in PUBLISHED.items()}
    for name in [name for name in PUBLISHED if name.endswith("_u")]:
        matrix = state[name.replace("_u", "_orig")].flatten(1)
        u = state[name]
        for _ in range(5):
            v = functional.normalize(matrix.t() @ u, dim=0)
            u = functional.normalize(matrix @ v, dim=0)
        state[name], state[name.replace("_u", "_v")] = u, v
    return state


@pytest.fixture(scope="module")
def netd(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("netD") / "RealESRGAN_x4plus_netD.pth"
    torch.save({"params": published}, path)
    return path


def plain_unet(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published U-Net, layer by layer."""

    def conv(number: int, x: Tensor, stride: int = 1) -> Tensor:
        name = f"conv{number}"
        if f"{name}.weight" in state:
            return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        weight, u, v = (state[f"{name}.weight_{kind}"] for kind in ("orig", "u", "v"))
        norm = (u[:, None] * weight.flatten(1) * v).sum()
        return functional.conv2d(x, weight / norm, stride=stride, padding=1)

    def activated(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    def doubled(x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="bilinear")

    down = [activated(conv(0, images))]
    for number in (1, 2, 3):
        down.append(activated(conv(number, down[-1], stride=2)))
    x = down.pop()
    for number in (4, 5, 6):
        x = activated(conv(number, doubled(x))) + down.pop()
    return conv(9, activated(conv(8, activated(conv(7, x)))))


def test_unet_reads_the_published_files(published: dict[str, Tensor], netd: Path) -> None:
    network = build_discriminator("unet", 0)
    network.load_state_dict(torch.load(netd)["params"], strict=True)
    loaded = load_discriminator("unet", netd)
    images = torch.rand(2, 3, 24, 40)
    for one in (network, loaded):
        assert list(one.state_dict()) == list(PUBLISHED)
        assert all(torch.equal(tensor, published[name]) for name, tensor in one.state_dict().items())
        torch.testing.assert_close(one(images), plain_unet(published, images))


def test_unet_reads_files_of_the_parametrisation(published: dict[str, Tensor], netd: Path, tmp_path: Path) -> None:
    names = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}

    def renamed(name: str) -> str:
        layer, _, kind = name.partition(".")
        return f"{layer}.parametrizations.weight.{names[kind]}" if kind in names else name

    torch.save({"params": {renamed(name): tensor for name, tensor in published.items()}}, tmp_path / "net_d.pth")
    state = load_discriminator("unet", tmp_path / "net_d.pth").state_dict()
    assert all(torch.equal(tensor, published[name]) for name, tensor in state.items())


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_weights_are_saved_and_read(name: str, tmp_path: Path) -> None:
    network = build_discriminator(name, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_weights(tmp_path / "netD.pth", network.state_dict(), None)
    loaded = load_discriminator(name, tmp_path / "netD.pth").state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in network.state_dict().items())


def test_other_files_are_refused(published: dict[str, Tensor], netd: Path, tmp_path: Path) -> None:
    def error(state: dict[str, Tensor], name: str = "unet") -> str:
        torch.save({"params": state}, tmp_path / "other.pth")
        with pytest.raises(UsageError) as refused:
            load_discriminator(name, tmp_path / "other.pth")
        expected = f"{tmp_path}/other.pth is not a file of the discriminator {name} (pass one of its own, e.g. "
        assert str(refused.value).startswith(f"{expected}RealESRGAN_x4plus_netD.pth for unet): ")
        return str(refused.value).split("): ")[1]

    with pytest.raises(UsageError, match=r"no such file: .*missing\.pth"):
        load_discriminator("unet", tmp_path / "missing.pth")
    assert error(published, "patchgan").startswith("conv0.weight is [64, 3, 3, 3] instead of [64, 3, 4, 4]")
    assert error(network_spec("ultra_lite", 2).build().state_dict()).startswith("conv0.weight is missing")
    broken = torch.full_like(published["conv9.bias"], torch.nan)
    assert error({**published, "conv9.bias": broken}) == "conv9.bias is not finite"
    assert error({**published, "conv10.bias": torch.zeros(1)}) == "conv10.bias is unknown"


# ---- spectral normalisation


def test_spectral_normalisation_is_that_of_pytorch() -> None:
    """The output, gradients and power iteration of torch.nn.utils.spectral_norm."""
    reference = nn.utils.spectral_norm(nn.Conv2d(5, 6, 4, stride=2, padding=1))
    ours = SpectralConv2d(5, 6, 4, stride=2, bias=True)
    ours.load_state_dict(reference.state_dict(), strict=True)
    features = torch.rand(2, 5, 8, 10)
    for is_training in (False, True):
        if is_training:  # in which PyTorch iterates with each forward pass
            ours.iterate()
        for module in (reference.train(is_training), ours):
            module.zero_grad()
            module(features).square().sum().backward()
        expected = dict(reference.named_parameters())
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name].grad)
        torch.testing.assert_close(ours(features), reference.eval()(features))
        torch.testing.assert_close(ours.state_dict(), reference.state_dict())


def test_weights_are_normalised_from_the_start(small: Discriminator) -> None:
    layers = [module for module in small.modules() if isinstance(module, SpectralConv2d)]
    assert len(layers) >= 3
    for layer in layers:
        matrix = layer.weight_orig.detach().flatten(1).numpy()
        estimate = layer.weight_u.numpy() @ matrix @ layer.weight_v.numpy()
        assert estimate == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=0.1)


# ---- networks


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_equal_seeds_give_equal_weights(name: str) -> None:
    before = torch.get_rng_state()
    states = [build_discriminator(name, seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    drawn = [key for key in states[0] if key.endswith(("weight_orig", "conv0.weight", "offset.weight"))]
    assert drawn and not any(torch.equal(states[0][key], states[2][key]) for key in drawn)
    for tensor in states[0].values():
        assert tensor.dtype is torch.float32 and tensor.isfinite().all()


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_the_table_has_the_possible_sizes(name: str) -> None:
    row, network = DISCRIMINATORS[name], built(SMALL[name], 0)
    height, width = row.min_px, row.min_px + 3 * row.multiple_px
    logits = network(torch.rand(2, 3, height, width))
    assert logits.shape[:2] == (2, 1) and min(logits.shape) >= 1
    if name != "patchgan":
        assert logits.shape[2:] == (height, width)
    impossible = height - 1 if row.multiple_px == 1 else height + row.multiple_px // 2
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 3, impossible, width))


def test_patchgan_judges_patches_of_70_px() -> None:
    network = built(SMALL["patchgan"], 0)
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    logits = network(images)
    assert logits.shape == (1, 1, 30, 30)
    seen = []
    for position in (14, 15):
        (gradient,) = torch.autograd.grad(logits[0, 0, position, position], images, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        assert rows[-1] - rows[0] + 1 == 70
        seen.append(int(rows[0]))
    assert seen[1] - seen[0] == 8


def test_images_are_judged_independently(small: Discriminator) -> None:
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(small(images)[1:2], small(images[1:2]), rtol=1e-4, atol=1e-6)


def test_bfloat16_logits_are_close(small: Discriminator, monkeypatch: pytest.MonkeyPatch) -> None:
    mv, lowers = torch.mv, []

    def recorded_mv(matrix: Tensor, vector: Tensor) -> Tensor:
        lowers.append(torch.is_autocast_enabled("cpu"))
        return mv(matrix, vector)

    monkeypatch.setattr(torch, "mv", recorded_mv)  # which autocast lowers to half precision on GPUs
    images = torch.rand(2, 3, 32, 32)
    expected = small(images)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        logits = small(images)
    assert logits.dtype is torch.float32
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert lowers and not any(lowers)
    logits.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in small.parameters())


@pytest.mark.slow
def test_networks_are_compiled_as_one_graph(small: Discriminator) -> None:
    torch._dynamo.reset()
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(torch.compile(small, backend="eager", fullgraph=True)(images), small(images))


def test_dysample_starts_as_bilinear_upsampling() -> None:
    network = built(SMALL["dunet"], 0)
    layer = next(module for module in network.modules() if isinstance(module, DySample))
    features = torch.rand(2, 64, 5, 7)
    bilinear = functional.interpolate(features, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(layer(features), bilinear, rtol=0, atol=0.02)
    wide = torch.rand(1, 64, 1, 300)
    with torch.autocast("cpu", torch.bfloat16):  # which cannot represent positions beyond 256 px
        sampled = layer(wide)
    torch.testing.assert_close(
        sampled, functional.interpolate(wide, scale_factor=2, mode="bilinear"), rtol=0, atol=0.02
    )
    with torch.no_grad():  # let the second group sample one px further to the right
        layer.offset.weight.zero_()
        layer.offset.bias.view(2, 4, 4)[0, 1] = 4.0
        sampled = layer(features)
    torch.testing.assert_close(sampled[:, :16], bilinear[:, :16])
    torch.testing.assert_close(sampled[:, 16:32, :, :-2], bilinear[:, 16:32, :, 2:])
    torch.testing.assert_close(sampled[:, 32:], bilinear[:, 32:])
