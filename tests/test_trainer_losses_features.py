"""Losses of networks' features: VGG19 with random weights, LPIPS and DISTS by the stand-in for pyiqa; weights files."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_pyiqa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srshards.errors import UsageError
from trainer.loss_table import LOSSES
from trainer.losses import build_loss, find_loss_weights
from trainer.losses.contextual import Contextual
from trainer.losses.image_loss import ImageLoss
from trainer.models.vgg19 import LAYERS, VGG19Features, load_vgg19
from trainer.weights_table import ALEXNET, LPIPS, VGG19, WEIGHTS_FILES

CPU = torch.device("cpu")
# options/train_realesrgan_x4plus.yml of Real-ESRGAN.
WEIGHTS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
BF16_BOUND = 0.01  # relative, of a loss of features in bfloat16


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PyTorch's hub cache, empty. pyiqa is not installed."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of VGG19, with features that neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    state = VGG19Features(LAYERS).half().state_dict()
    for tensor in state.values():
        fan_in = tensor[0].numel() if tensor.ndim == 4 else torch.inf
        tensor.copy_(torch.empty(tensor.shape).normal_(0, (2 / fan_in) ** 0.5, generator=generator))
    path = tmp_path_factory.mktemp("vgg19") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def losses(vgg_file: Path) -> dict[str, ImageLoss]:
    """The losses of VGG19, in float32. `eval` and `double` would change them: copy first."""
    return {name: build_loss(name, CPU, vgg_file) for name in ("perceptual", "contextual")}  # type: ignore[misc]


def images(size: tuple[int, int] = (32, 41), number: int = 2) -> tuple[Tensor, Tensor]:
    """Return output and target in [0, 1], about."""
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(number, 3, *size, generator=generator)
    return target + 0.1 * torch.randn(target.shape, generator=generator), target


# ---- values


def expected_perceptual(vgg_file: Path, output: Tensor, target: Tensor) -> float:
    network = load_vgg19(vgg_file, WEIGHTS)
    of_output, of_target = (
        {layer: values.double().numpy() for layer, values in network(one).items()} for one in (output, target)
    )
    return sum(weight * float(np.abs(of_output[name] - of_target[name]).mean()) for name, weight in WEIGHTS.items())


def contextual_similarities(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return max_i CX_ij of all j, of C x N features of an image, the centre of which was subtracted."""
    x, y = (one / np.linalg.norm(one, axis=0) for one in (x, y))
    similarities = np.empty((x.shape[1], y.shape[1]))
    for i, vector in enumerate(x.T):
        distances = 1 - vector @ y
        weights = np.exp((1 - distances / (distances.min() + 1e-5)) / 0.5)
        similarities[i] = weights / weights.sum()
    return similarities.max(0)


def expected_contextual(x: NDArray[np.float64], y: NDArray[np.float64], blocks: tuple[int, int] = (1, 1)) -> float:
    """Of N x C x H x W features."""
    values = []
    for of_output, of_target in zip(x, y, strict=True):
        centre = of_target.mean((1, 2), keepdims=True)
        parts = (
            [
                part.reshape(len(part), -1)
                for row in np.array_split(one - centre, blocks[0], 1)
                for part in np.array_split(row, blocks[1], 2)
            ]
            for one in (of_output, of_target)
        )
        best = [contextual_similarities(*pair) for pair in zip(*parts, strict=True)]
        values.append(-np.log(np.concatenate(best).mean()))
    return float(np.mean(values))


def test_values_are_those_of_the_formulas(losses: dict[str, ImageLoss], vgg_file: Path) -> None:
    output, target = images()
    assert losses["perceptual"](output, target).item() == pytest.approx(
        expected_perceptual(vgg_file, output, target), rel=1e-4
    )
    network = load_vgg19(vgg_file, ["relu3_4"])
    features = [network(one)["relu3_4"].double().numpy() for one in (output, target)]
    expected = expected_contextual(*features)
    assert expected > 0.01
    assert losses["contextual"](output, target).item() == pytest.approx(expected, rel=1e-3)


class Identity(nn.Module):
    """Takes the place of VGG19 for images that are features."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"relu3_4": images}


@pytest.mark.parametrize(
    ("size", "blocks"), [((32, 32), (1, 1)), ((33, 32), (2, 1)), ((5, 65), (1, 3)), ((48, 48), (2, 2))], ids=str
)
def test_features_are_compared_within_blocks(size: tuple[int, int], blocks: tuple[int, int]) -> None:
    output, target = (one.double() for one in images(size, number=1))
    expected = expected_contextual(output.numpy(), target.numpy(), blocks)
    assert Contextual(Identity())(output, target).item() == pytest.approx(expected)  # type: ignore[arg-type]


def test_memory_of_contextual_grows_with_the_number_of_pixels() -> None:
    """Not with its square, as the number of pairs."""

    def saved_bytes(edge: int) -> int:
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        output, target = images((edge, edge), number=1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            Contextual(Identity())(output.requires_grad_(), target)  # type: ignore[arg-type]
        return total

    assert saved_bytes(64) < 4.1 * saved_bytes(32)


@pytest.mark.parametrize("name", ["perceptual", "contextual"])
def test_equal_images(losses: dict[str, ImageLoss], name: str) -> None:
    target = images()[1]
    output = target.clone().requires_grad_()
    loss = losses[name](output, target)
    loss.backward()
    assert loss.item() == (0 if name == "perceptual" else pytest.approx(0, abs=0.01))
    assert output.grad is not None and output.grad.isfinite().all()


# ---- gradients and precision


@pytest.mark.parametrize("name", ["perceptual", "contextual"])
def test_gradients_are_those_of_finite_differences(name: str, vgg_file: Path) -> None:
    loss = build_loss(name, CPU, vgg_file).double()  # type: ignore[attr-defined]
    output, target = (one.double() for one in images((17, 16), number=1))
    assert torch.autograd.gradcheck(lambda one: loss(one, target), output.requires_grad_(), eps=1e-7, fast_mode=True)


@pytest.mark.parametrize("name", ["perceptual", "contextual"])
def test_gradients_flow_to_the_output_only(losses: dict[str, ImageLoss], name: str) -> None:
    output, target = (one.requires_grad_() for one in images())
    losses[name](output, target).backward()
    assert output.grad is not None and target.grad is None
    assert not any(parameter.requires_grad for parameter in losses[name].parameters())


@pytest.mark.parametrize("name", ["perceptual", "contextual"])
def test_images_of_a_batch_are_independent(losses: dict[str, ImageLoss], name: str) -> None:
    output, target = images()
    single = [losses[name](output[number : number + 1], target[number : number + 1]).item() for number in range(2)]
    assert losses[name](output, target).item() == pytest.approx(sum(single) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["perceptual", "contextual"])
def test_features_have_the_dtype_of_autocast(losses: dict[str, ImageLoss], name: str) -> None:
    output, target = images()
    exact = losses[name](output, target)
    dtypes: list[torch.dtype] = []
    network = losses[name]._compute._network
    hook = network.register_forward_hook(lambda _, __, features: dtypes.extend(one.dtype for one in features.values()))
    with torch.autocast("cpu", torch.bfloat16):
        found = losses[name](output.requires_grad_(), target)
    found.backward()
    half = losses[name](output.bfloat16(), target)
    hook.remove()
    count = len(dtypes) // 4
    assert dtypes == [torch.bfloat16] * 2 * count + [torch.float32] * 2 * count
    assert found.dtype == half.dtype == torch.float32
    assert found != exact and found.item() == pytest.approx(exact.item(), rel=BF16_BOUND)
    assert half.item() == pytest.approx(exact.item(), rel=BF16_BOUND)
    assert output.grad is not None and output.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["perceptual", "contextual"])
def test_unsuitable_shapes(losses: dict[str, ImageLoss], name: str) -> None:
    losses[name](*[torch.zeros(1, 3, 16, 16)] * 2)
    with pytest.raises(ValueError, match=f"{name} needs patches of at least 16 px, got 20 x 15 px"):
        losses[name](*[torch.zeros(1, 3, 15, 20)] * 2)
    with pytest.raises(ValueError, match="expected tensors of equal shape"):
        losses[name](torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))


@pytest.mark.slow
def test_all_compile_without_graph_breaks(losses: dict[str, ImageLoss]) -> None:
    def total(output: Tensor, target: Tensor) -> Tensor:
        return torch.stack([loss(output, target) for loss in losses.values()])

    compiled = torch.compile(total, fullgraph=True, dynamic=False, backend="eager")
    assert torch.equal(compiled(*images()), total(*images()))


# ---- LPIPS and DISTS

# A network with a parameter, which computes the mean difference by a convolution.
NETWORK = """
    def __init__(self, name):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1, 3, 1, 1), 1 / 3))

    def forward(self, output, target):
        difference = torch.nn.functional.conv2d((output - target).abs(), self.weight)
        calls.append(difference.dtype)
        return difference.mean((2, 3))
"""


@pytest.fixture
def use_pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    package = fake_pyiqa.PACKAGE
    package = package.partition("    def __init__(self, name):")[0] + NETWORK
    return partial(fake_pyiqa.use_pyiqa, tmp_path / "site", monkeypatch, package)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all files of LPIPS and DISTS, each with a number; the table has their digests."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for number, name in enumerate((*LOSSES["lpips"].weights, *LOSSES["dists"].weights)):
        torch.save({"value": torch.tensor(float(number))}, folder / name)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()[:8]
        monkeypatch.setitem(WEIGHTS_FILES, name, replace(WEIGHTS_FILES[name], sha256=digest))
    return folder


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_metrics_as_losses(name: str, weights: Path, use_pyiqa: Callable[[], None]) -> None:
    use_pyiqa()
    loss = build_loss(name, CPU, weights)
    calls: list[Any] = sys.modules["pyiqa"].calls
    assert calls.pop()["name"] == name
    output, target = (one.requires_grad_() for one in images())
    expected = (output - target).abs().mean().item()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(output, target)
    found.backward()
    assert found.shape == () and found.dtype == torch.float32 and found.item() == pytest.approx(expected)
    assert calls == [torch.float32]
    assert output.grad is not None and output.grad.abs().sum() > 0 and target.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())  # type: ignore[attr-defined]
    assert loss(target, target) == 0
    min_px = LOSSES[name].min_px
    with pytest.raises(ValueError, match=f"{name} needs patches of at least {min_px} px, got 40 x {min_px - 1} px"):
        loss(*[torch.zeros(1, 3, min_px - 1, 40)] * 2)


# ---- weights files


def refusal(function: Callable[..., object], *args: object) -> str:
    with pytest.raises(UsageError) as refused:
        function(*args)
    return str(refused.value)


def curl(file: str, folder: Path) -> str:
    row = WEIGHTS_FILES[file]
    return f"  {file} ({row.size}) is missing; run: curl -fL --create-dirs -o {folder / file} {row.url}"


def test_missing_files_are_listed_at_once(hub: Path, use_pyiqa: Callable[[], None]) -> None:
    use_pyiqa()
    names = ["l1", "perceptual", "lpips", "contextual", "perceptual"]
    assert refusal(find_loss_weights, names, None).splitlines() == [
        "without these files, perceptual, lpips and contextual cannot be computed; fetch them, or pass a folder that "
        "has them with --perceptual-weights:",
        curl(VGG19.name, hub / "checkpoints"),
        curl(ALEXNET.name, hub / "checkpoints"),
        curl(LPIPS.name, hub / "pyiqa"),
    ]
    assert refusal(build_loss, "contextual", CPU).startswith("without these files, contextual cannot be computed; ")
    assert find_loss_weights(["l1", "msssim"], None) == {}


def test_missing_files_belong_into_the_given_folder(tmp_path: Path) -> None:
    message = refusal(find_loss_weights, ["perceptual"], tmp_path)
    assert message.endswith(curl(VGG19.name, tmp_path))


def test_without_pyiqa() -> None:
    message = "pyiqa is not installed, which computes dists; run `pip install 'sr-shards[metrics]'`"
    assert refusal(find_loss_weights, ["l1", "dists"], None).startswith(message)


def test_weights_of_vgg19_in_a_file_of_any_name(
    vgg_file: Path, weights: Path, hub: Path, use_pyiqa: Callable[[], None]
) -> None:
    """The files of other losses then come from the caches."""
    use_pyiqa()
    message = refusal(find_loss_weights, ["perceptual", "lpips"], vgg_file)
    assert message.startswith("without these files, lpips cannot be computed; ")
    assert message.endswith(curl(LPIPS.name, hub / "pyiqa"))
    for file in (ALEXNET, LPIPS):
        (hub / file.cache).mkdir(parents=True)
        (weights / file.name).rename(hub / file.cache / file.name)
    assert find_loss_weights(["perceptual", "lpips"], vgg_file) == {
        VGG19.name: vgg_file,
        ALEXNET.name: hub / "checkpoints" / ALEXNET.name,
        LPIPS.name: hub / "pyiqa" / LPIPS.name,
    }


def test_each_weights_file_is_hashed_once_until_it_changes(
    weights: Path, use_pyiqa: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run finds the files, of which VGG19's has 575 MB, before it loads them."""
    use_pyiqa()
    hashed = []

    def sha256() -> Any:
        hashed.append(True)
        return hashlib.new("sha256")

    monkeypatch.setattr("trainer.models.weights_files.hashlib", SimpleNamespace(sha256=sha256))
    find_loss_weights(["lpips", "dists"], weights)
    for name in ("lpips", "dists"):
        build_loss(name, CPU, weights)
    assert len(hashed) == 4
    with open(weights / ALEXNET.name, "ab") as file:
        file.write(b"x")
    assert f"{ALEXNET.name} (244 MB) is damaged" in refusal(build_loss, "lpips", CPU, weights)


def test_weights_files_that_cannot_be_used(tmp_path: Path) -> None:
    missing = tmp_path / "x.pth"
    assert refusal(find_loss_weights, ["perceptual"], missing) == (
        f"--perceptual-weights {missing}: no such file or folder; pass a folder that has the files"
    )
    other = tmp_path / "x.txt"
    other.touch()
    assert refusal(find_loss_weights, ["perceptual"], other).startswith(
        f"--perceptual-weights {other}: no published file has this name; pass a folder, or a file by its published name"
    )
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, missing)
    assert refusal(build_loss, "perceptual", CPU, missing).startswith(
        f"{missing} does not have the weights of VGG19: features.0.bias is missing"
    )
    (tmp_path / VGG19.name).write_bytes(b"<html>404</html>")
    assert "is damaged (SHA-256 of " in refusal(build_loss, "perceptual", CPU, tmp_path / VGG19.name)
