"""The features of VGG19: compared with a plain sequence of layers, and read from torchvision's layout of weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from srshards.errors import UsageError
from trainer.models.vgg19 import LAYERS, VGG19Features, load_vgg19
from trainer.weights_table import VGG19

# The published architecture (configuration E): channels of convolutions, "M" for a pooling.
CONFIGURATION = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]
# Layers by their number in it.
NUMBERS = {"conv1_1": 0, "relu1_1": 1, "conv2_2": 7, "relu3_1": 11, "conv4_4": 25, "conv5_4": 34, "relu5_4": 35}
CURL = f"(575 MB) has them: curl -fL -o {{}} {VGG19.url}"


def plain(configuration: list[int | str]) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for item in configuration:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inputs, item, 3, padding=1), nn.ReLU()]
            inputs = item
    return nn.Sequential(*layers)


def state_of(layers: nn.Sequential) -> dict[str, Tensor]:
    """Names and values as in torchvision's file, which also has a classifier."""
    state = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    return state | {"classifier.0.weight": torch.zeros(8, 8)}


@pytest.fixture(scope="module")
def reference() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = plain(CONFIGURATION)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):  # so that features neither vanish nor explode
                layer.weight.data.normal_(0, (2 / layer.weight[0].numel()) ** 0.5)
    return layers


@pytest.fixture(scope="module")
def weights(reference: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg19") / "vgg19-dcbb9e9d.pth"
    torch.save(state_of(reference), path, _use_new_zipfile_serialization=False)  # as the published file
    return path


def expected(reference: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images - mean[:, None, None]) / std[:, None, None]
    outputs = []
    for layer in reference[:-1]:  # without the last pooling
        x = layer(x)
        outputs.append(x)
    return {name: outputs[number] for name, number in NUMBERS.items()}


@pytest.mark.parametrize("size", [(16, 16), (35, 50)], ids=str)
def test_features_are_those_of_a_plain_network(reference: nn.Sequential, weights: Path, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    features = load_vgg19(weights, NUMBERS)(images)
    assert list(features) == list(NUMBERS)
    for name, values in expected(reference, images).items():
        torch.testing.assert_close(features[name], values)
        assert values.std() > 1e-3
    assert features["conv1_1"].min() < 0, "the activation must not change the features before it"
    assert features["conv5_4"].shape == (2, 512, size[0] // 16, size[1] // 16)


def test_gradients_reach_the_images_only(reference: nn.Sequential, weights: Path) -> None:
    network = load_vgg19(weights, ["conv2_2"]).train()
    gradients = []
    for features in (network, lambda images: expected(reference, images)):
        images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        features(images)["conv2_2"].square().mean().backward()
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_only_the_needed_layers_are_built(weights: Path) -> None:
    network = load_vgg19(weights, ["relu2_1", "conv1_2"])
    names = [f"features.{number}.{kind}" for number in (0, 2, 5) for kind in ("weight", "bias")]
    assert list(network.state_dict()) == names
    assert len(LAYERS) == 32 and len(VGG19Features(["conv5_4"]).state_dict()) == 32
    assert list(network(torch.rand(1, 3, 8, 8))) == ["conv1_2", "relu2_1"]


def test_safetensors_and_half_precision(reference: nn.Sequential, weights: Path, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in state_of(reference).items()}
    save_file(halves, tmp_path / "vgg19.safetensors")
    network = load_vgg19(tmp_path / "vgg19.safetensors", ["conv1_1"])
    assert torch.equal(network.state_dict()["features.0.weight"], halves["features.0.weight"].float())


@pytest.mark.parametrize(
    ("layers", "message"), [(["conv6_1", "relu1_1"], "^conv6_1; expected some of conv1_1, relu1_1"), ([], "no layers")]
)
def test_unknown_layers(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VGG19Features(layers)


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as refused:
        load_vgg19(path, ["conv1_1"])
    return str(refused.value)


def test_weights_of_other_networks(reference: nn.Sequential, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    there = CURL.format(tmp_path / "vgg19-dcbb9e9d.pth")  # beside the given file, which the command must not overwrite
    start = f"{path} does not have the weights of VGG19: "
    vgg16 = [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"]
    torch.save(state_of(plain(vgg16)), path)
    message = refusal(path)
    assert message.startswith(f"{start}features.16.weight is missing, features.16.bias is missing, ")
    assert message.endswith(there)

    torch.save({name: tensor for name, tensor in state_of(reference).items() if name != "features.34.bias"}, path)
    assert f"{start}features.34.bias is missing; torchvision's" in refusal(path)

    torch.save(state_of(reference) | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
    assert f"{start}features.0.weight is [64, 1, 3, 3] instead of [64, 3, 3, 3]; torchvision's" in refusal(path)


def test_files_that_cannot_be_read(weights: Path, tmp_path: Path) -> None:
    start, there = "cannot read the weights of VGG19: ", CURL.format(tmp_path / "vgg19-dcbb9e9d.pth")
    message = refusal(tmp_path / "missing.pth")
    assert message.startswith(f"{start}no such file: {tmp_path / 'missing.pth'}") and message.endswith(there)
    message = refusal(tmp_path)
    assert message.startswith(f"{start}{tmp_path} is a folder") and message.endswith(there)
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(weights.read_bytes()[:1_000_000])
    assert f"{start}cannot read weights from {truncated}: the file is damaged or truncated" in refusal(truncated)
