"""Networks of spandrel: building, training, saving, reading; spandrel itself missing; hostile files."""

import importlib
import pickle
import re
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from srshards.errors import UsageError
from trainer.catalogue import NETWORKS
from trainer.loss_terms import LossTerm
from trainer.models import BuiltInSpec, NetworkSpec, network_spec, spec_from_json
from trainer.models.architectures import ARCHITECTURES
from trainer.models.spandrel_files import open_network
from trainer.models.spandrel_import import load_spandrel
from trainer.models.spandrel_network import SpandrelNetwork, SpandrelSpec, network_class, spandrel_spec
from trainer.models.uninitialised import UninitialisedParameters
from trainer.models.weights import load_network, save_weights
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.network import initial_weights
from trainer.training.objective import Objective
from trainer.training.step_mode import StepMode

State = dict[str, Tensor]
_WINDOWS: dict[str, Any] = {"embed_dim": 16, "num_heads": [2], "depths": [2], "mlp_ratio": 2.0}
_DIRECT = {"upsampler": "pixelshuffledirect"}
SMALL: dict[str, dict[str, Any]] = {
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "norm": False},
    "PLKSR": {"dim": 8, "n_blocks": 2, "kernel_size": 5, "ccm_type": "DCCM"},
    "RealPLKSR": {"dim": 8, "n_blocks": 2, "kernel_size": 5, "dysample": True},
    "MoSR": {"n_block": 3, "dim": 8},
    "SAFMN": {"dim": 8, "n_blocks": 2},
    "OmniSR": {"num_feat": 16, "res_num": 1},
    "SwinIR": {**_WINDOWS, **_DIRECT, "window_size": 8, "img_size": 16},
    "Swin2SR": {**_WINDOWS, **_DIRECT, "window_size": 8, "img_size": 16},
    "HAT": {**_WINDOWS, "window_size": 16, "squeeze_factor": 4, "upsampler": "pixelshuffle"},
    "DRCT": {**_WINDOWS, "depths": [6], "window_size": 16, "img_size": 32, "gc": 8, "upsampler": "pixelshuffle"},
    "ATD": {**_WINDOWS, **_DIRECT, "window_size": 8, "num_tokens": 8, "reducted_dim": 4},
    "DAT": {"embed_dim": 64, "depth": [3], "num_heads": [2], "split_size": [4, 8], "img_size": 16, **_DIRECT},
    "RGT": {"embed_dim": 96, "depth": [3], "num_heads": [2], "split_size": [4, 4]},
}
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)


def small(architecture: str, scale: int = 2, **changes: Any) -> SpandrelSpec:
    return spandrel_spec(architecture, scale, {**SMALL[architecture], **changes})


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def learner(spec: NetworkSpec, **changes: Any) -> Learner:
    """Return a learner as the trainer makes it: channels_last, AdamW, EMA."""
    settings: dict[str, Any] = {
        "total_steps": 8,
        "lr": 1e-3,
        "warmup": 0,
        "objective": Objective([LossTerm("l1")]),
        "precision": Precision(None),
        "micro_batches": 1,
        "clip": 1.0,
        "ema": 0.9,
        "mode": StepMode(),
    }
    network, ema = (spec.build(0).to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    return Learner(network, ema, StepSettings(**settings | changes))


class Batch:
    """A batch of patches: bytes, as PatchLoader yields them."""

    def __init__(self, seed: int, scale: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.input = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=generator)
        self.hr = self.input.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def train(trained: Learner, steps: range) -> None:
    for step in steps:
        trained.step(step, iter([Batch(step, trained.network.scale)]))  # type: ignore[list-item]


# ---- every architecture with training support


def test_every_architecture_is_tested() -> None:
    assert SMALL.keys() == ARCHITECTURES.keys()


@EVERY
def test_building_is_deterministic_and_keeps_the_global_generator(architecture: str) -> None:
    spec = small(architecture)
    before = torch.get_rng_state()
    first, second, other = (spec.build(seed).state_dict() for seed in (3, 3, 4))
    assert equal(first, second) and not equal(first, other)
    assert list(spec.shapes().items()) == [(name, tensor.shape) for name, tensor in first.items()]
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_specs_survive_json_and_pickling(architecture: str) -> None:
    spec = small(architecture)
    assert spec_from_json(spec.as_json()) == pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(small(architecture)) and spec != small(architecture, scale=4)
    assert spec.margin_px % spec.multiple_px == 0


@pytest.mark.slow
@EVERY
def test_training_resumes_exactly_and_is_saved_as_spandrel_expects(architecture: str, tmp_path: Path) -> None:
    spec = small(architecture)
    whole, first, second = learner(spec), learner(spec), learner(spec)
    before = {name: value.clone() for name, value in whole.network.state_dict().items()}
    train(whole, range(2))
    params, ema = whole.weights()
    names = [name.removeprefix("inner.") for name, _ in whole.network.named_parameters()]
    assert not [name for name in names if torch.equal(params[name], before[name])]
    assert ema is not None and params.keys() == ema.keys()
    assert all(torch.equal(ema[name], params[name]) for name in params.keys() - set(names)), "buffers of the EMA"

    train(first, range(1))
    torch.rand(1)  # after a restart, the global generator has another state
    second.restore(first.state())
    train(second, range(1, 2))
    for expected, found in zip(whole.weights(), second.weights(), strict=True):
        assert expected is not None and found is not None and equal(expected, found)

    for network, state in ((whole.network, params), (whole.evaluation_network, ema)):
        path = tmp_path / "w.pth"
        save_weights(path, state, None)
        ours, theirs = load_network(path), load_spandrel().ModelLoader().load_from_file(path)
        assert ours.spec == spec and theirs.size_requirements.multiple_of == spec.needs.multiple_px
        assert max(1, theirs.size_requirements.minimum) == spec.needs.minimum_px
        network.eval()
        for size in ((16, 32), (9, 5), (1, 1)):
            images = noise(1, 3, *size)
            with torch.inference_mode():
                output = network(images)
                assert torch.equal(images, noise(1, 3, *size)), "changed in place"
                assert output.shape == (1, 3, 2 * size[0], 2 * size[1])
                assert float((output - ours(images)).abs().max()) <= 1e-5, size
                assert float((output.clamp(0, 1) - theirs(images)).abs().max()) <= 1e-5, size


@EVERY
def test_pixels_are_float32_under_autocast(architecture: str) -> None:
    network = small(architecture).build().eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        output = network(noise(1, 3, 16, 16))
    rounded = output.to(torch.bfloat16).float()
    assert output.dtype == torch.float32 and float((output != rounded).float().mean()) > 0.9


@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if row.architecture in ARCHITECTURES])
def test_the_catalogue_names_what_its_files_contain(name: str) -> None:
    """A file says nothing about some arguments, for which the catalogue must not choose another value."""
    spec = network_spec(name, 4)
    with UninitialisedParameters():
        network = spec.build()
        assert isinstance(network, SpandrelNetwork)
        found = open_network(network.inner.state_dict())
    assert found is not None and found.spec.as_json() == spec.as_json()


@pytest.mark.parametrize(
    ("architecture", "scale", "arguments", "message"),
    [
        ("SPAN", 5, {}, r"^SPAN does not support 5x, only 1x, 2x, 3x, 4x, 8x$"),
        ("SwinIR", 3, {"upsampler": "nearest+conv"}, r"^SwinIR does not support 3x, only 2x, 4x, 8x$"),
        ("DAT", 1, {"upsampler": "pixelshuffle"}, r"^DAT does not support 1x, only 2x, 3x, 4x, 8x$"),
        ("SwinIR", 2, {"start_unshuffle": 2}, r"^SwinIR with these arguments has no training support: spandrel mis"),
        ("SAFMN", 2, {"width": 3}, r"^SAFMN has no width; its arguments are dim, n_blocks, ffn_scale, upscaling_fac"),
        ("GRL", 2, {}, r"^GRL has no training support, only ATD, DAT, .*; it can be evaluated, used to upscale and"),
    ],
)
def test_unsupported_specs_are_refused(architecture: str, scale: int, arguments: State, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spandrel_spec(architecture, scale, {**SMALL.get(architecture, {}), **arguments})


@EVERY
def test_arguments_with_another_scale_are_refused(architecture: str) -> None:
    plain = small(architecture).as_json()
    scale_argument = ARCHITECTURES[architecture].scale_argument
    assert plain["arguments"][scale_argument] == 2
    plain["arguments"][scale_argument] = 4
    with pytest.raises(ValueError, match=f"^{architecture} at 2x has {scale_argument} 4$"):
        spec_from_json(plain)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", small("SAFMN", dim=12).build().state_dict(), None)
    with pytest.raises(
        UsageError, match=r"are for SAFMN \(dim 12, n_blocks 2\) at 2x, but this run trains SAFMN \(dim 8, n_blocks 2\)"
    ):
        initial_weights(tmp_path / "w.pth", small("SAFMN").build().spec)


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of this process alone, in which DDP works as in a larger one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("architecture", ["SPAN", "DAT"])
def test_ddp_finds_no_unused_parameters(architecture: str, process_group: None) -> None:
    alone, wrapped = learner(small(architecture)), learner(small(architecture))
    with_ddp = Learner(
        wrapped.network, None, replace(wrapped.settings, ema=0), DistributedDataParallel(wrapped.network)
    )
    train(alone, range(3))
    train(with_ddp, range(3))  # with unused parameters, the second step fails
    assert equal(alone.weights()[0], with_ddp.weights()[0])


def test_autocast_trains() -> None:
    trained = learner(small("SPAN"), precision=Precision(torch.bfloat16))
    before = {name: value.clone() for name, value in trained.weights()[0].items()}
    train(trained, range(2))
    assert trained.is_finite() and not equal(trained.weights()[0], before)


# ---- re-parameterised convolutions


def test_the_fused_convolution_is_computed_for_evaluation_and_files() -> None:
    trained = learner(small("SPAN"))
    train(trained, range(1))
    network = trained.network
    memory = network.inner.conv_1.eval_conv.weight.data_ptr()  # type: ignore[union-attr]
    images = noise(1, 3, 12, 12)
    with torch.no_grad():
        expected = network(images)  # the sum of convolutions
        assert torch.allclose(network.eval()(images), expected, rtol=1e-4, atol=1e-5)
        network.train()
        for parameter in network.parameters():
            parameter.mul_(1.01)
        changed = network(images)
        assert not torch.allclose(changed, expected, rtol=1e-4, atol=1e-5)
        reloaded = small("SPAN").build(1).eval()
        reloaded.inner.load_state_dict(network.state_dict())  # as other tools load it, without `eval` afterwards
        assert torch.allclose(reloaded(images), changed, rtol=1e-4, atol=1e-5)
    assert network.inner.conv_1.eval_conv.weight.data_ptr() == memory  # type: ignore[union-attr]


# ---- other architectures, and files that are not what they seem


def opened(architecture: str, **arguments: Any) -> SpandrelNetwork | None:
    network = network_class(architecture)(**arguments)
    return open_network(network.state_dict())


def test_architectures_without_training_support_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(network_class("RCAN")(scale=2, n_resgroups=1, n_resblocks=1, n_feats=16).state_dict(), path)
    network = load_network(path)
    theirs = load_spandrel().ModelLoader().load_from_file(path)
    images = noise(1, 3, 9, 7)
    with torch.inference_mode():
        output = network(images)
        assert torch.equal(images, noise(1, 3, 9, 7)), "RCAN changes its input in place"
        assert torch.equal(output.clamp(0, 1), theirs(images))
    assert network.spec.name == "RCAN" and network.spec.scale == 2
    for use in (network.spec.build, lambda: spec_from_json(network.spec.as_json())):
        with pytest.raises(UsageError, match=r"^RCAN has no training support, only ATD, .*; it can be evaluated, used"):
            use()


def test_variants_of_rrdbnet_that_spandrel_knows_are_opened(tmp_path: Path) -> None:
    state = BuiltInSpec("rrdb", 4, 32, 1, 32).build().state_dict()  # BSRGAN's 2x has one upsampling
    torch.save({name: value for name, value in state.items() if "conv_up2" not in name}, tmp_path / "w.pth")
    network = load_network(tmp_path / "w.pth")
    assert network.spec.name == "ESRGAN" and network.spec.scale == 2
    assert network(noise(1, 3, 5, 7)).shape == (1, 3, 10, 14)


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("DnCNN", {"in_nc": 1, "out_nc": 1}, "this DnCNN maps images of 1 channel to 1; pass a network for RGB images"),
        ("SPAN", {"num_in_ch": 1, "num_out_ch": 1, "norm": False}, "this SPAN maps images of 1 channel to 1; pass a"),
        ("LaMa", {}, "LaMa fills in masked parts of images; pass a network that upscales or restores them"),
        ("RestoreFormer", {}, "RestoreFormer restores cropped and aligned faces only; pass a network for any image"),
    ],
)
@pytest.mark.slow
def test_networks_for_other_images_are_refused(architecture: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        opened(architecture, **arguments)


def changed(architecture: str, change: Callable[[State], object]) -> State:
    state = dict(small(architecture).build().state_dict())
    change(state)
    return state


HUGE = 40_000
HOSTILE: dict[str, tuple[Callable[[], State], str]] = {
    "a parameter is missing": (
        lambda: changed("SAFMN", lambda state: state.pop("feats.1.norm1.bias")),
        r"looks like SAFMN, but spandrel cannot load it \(RuntimeError: Missing key.* \"feats.1.norm1.bias\"",
    ),
    "a shape differs": (
        lambda: changed("SPAN", lambda state: state.update({"conv_cat.weight": torch.zeros(8, 3, 1, 1)})),
        r"looks like SPAN, but spandrel cannot load it \(RuntimeError: size mismatch for conv_cat.weight",
    ),
    "a shape makes no sense": (
        lambda: changed("SPAN", lambda state: state.update({"upsampler.0.weight": torch.zeros(7, 8, 3, 3)})),
        r"looks like SPAN, but spandrel cannot load it \(AssertionError: Expected output channels",
    ),
    "one row of features": (
        lambda: changed("SAFMN", lambda state: state.update({"to_feat.weight": torch.zeros(HUGE, 1, 1, 1)})),
        r"looks like SAFMN, but its 40 parameters suggest a network that is far larger than they are",
    ),
    "a number of blocks in a name": (
        lambda: changed("SwinIR", lambda state: state.update({"layers.999999999.x": torch.zeros(1)})),
        r"weights of an unknown network",
    ),
    "a thousand blocks": (
        lambda: changed("PLKSR", lambda state: state.update({"feats.1000.weight": torch.zeros(12, 8, 3, 3)})),
        r"looks like PLKSR, but its \d+ parameters suggest a network that is far larger than they are",
    ),
    "a window": (
        lambda: changed(
            "SwinIR",
            lambda state: state.update(
                {"layers.0.residual_group.blocks.0.attn.relative_position_index": torch.zeros(10**6, 1)}
            ),
        ),
        r"looks like SwinIR, but its \d+ parameters suggest a network that is far larger than they are",
    ),
    "no values": (
        lambda: changed("SPAN", lambda state: state.update({"conv_cat.weight": torch.zeros(0, 10**12, 1, 1)})),
        r"weights of an unknown network",
    ),
    "quantised": (
        lambda: changed("SwinIR", lambda state: quantise(state, "relative_position_bias_table")),
        r"expected floating-point weights, but layers.0.* are integers \(quantised\?\)",
    ),
    "not finite": (
        lambda: changed("SAFMN", lambda state: state.update({"to_feat.bias": torch.full((8,), torch.nan)})),
        r"1 of 40 parameters have values that are not finite \(to_feat.bias\)",
    ),
}


def quantise(state: State, end: str) -> None:
    for name in state:
        if name.endswith(end):
            state[name] = state[name].to(torch.int8)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_damaged_files_end_in_a_sentence(case: str, tmp_path: Path) -> None:
    make, message = HOSTILE[case]
    path = tmp_path / "w.pth"
    torch.save(make(), path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB


# ---- spandrel and torchvision, missing and broken

FUNCTIONAL = "class InterpolationMode: ...\ndef rotate(): ...\ndef normalize(): ...\n"


@pytest.fixture
def fresh_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Lets spandrel be imported anew, with the packages that the function puts before the installed ones."""
    for name in [name for name in sys.modules if is_of_spandrel(name)]:
        monkeypatch.delitem(sys.modules, name)  # restored after what a test sets in its place
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, content: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if is_of_spandrel(name)]:
        del sys.modules[name]


def is_of_spandrel(name: str) -> bool:
    return name.partition(".")[0] in ("spandrel", "torchvision")


def torchvision_modules() -> set[str]:
    return {name for name in sys.modules if name.startswith("torchvision")}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("raise ModuleNotFoundError(name='torchvision')", ModuleNotFoundError),
        (
            "from torchvision import extension\nraise RuntimeError('operator torchvision::nms does not exist')",
            RuntimeError,
        ),
        ("raise AttributeError('partially initialized module')", AttributeError),
    ],
)
def test_spandrel_does_not_need_torchvision(
    content: str, error: type[Exception], fresh_imports: Callable[[str, str], None]
) -> None:
    fresh_imports("torchvision/__init__.py", content)
    fresh_imports("torchvision/extension.py", "")
    spandrel = load_spandrel()
    assert len(spandrel.MAIN_REGISTRY) > 40 and not torchvision_modules()
    with pytest.raises(error):
        importlib.import_module("torchvision")
    with pytest.raises(UsageError, match=r"^LaMa and RestoreFormer need torchvision; install the build that matches"):
        spandrel.architectures.RestoreFormer.tv_normalize(noise(3, 2, 2), [0.5] * 3, [0.5] * 3)


def test_a_working_torchvision_is_used(fresh_imports: Callable[[str, str], None]) -> None:
    fresh_imports("torchvision/__init__.py", "")
    fresh_imports("torchvision/transforms/__init__.py", "")
    fresh_imports("torchvision/transforms/functional.py", FUNCTIONAL)
    spandrel = load_spandrel()
    functional = sys.modules["torchvision.transforms.functional"]
    assert spandrel.architectures.RestoreFormer.tv_normalize is functional.normalize
    assert torchvision_modules() == {"torchvision", "torchvision.transforms", "torchvision.transforms.functional"}


@pytest.mark.parametrize("package", ["spandrel", "einops"])
def test_a_missing_package_is_named(
    package: str, fresh_imports: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save({"conv_1.sk.weight": torch.zeros(1)}, tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"networks other than sr-shards' own need {package}; run `pip install 'sr-shards\[arches\]'` or, in a"
    with pytest.raises(UsageError, match=message):
        network_spec("span", 4)
    with pytest.raises(UsageError, match=rf"^{re.escape(str(tmp_path))}/w.pth: {message}"):
        load_network(tmp_path / "w.pth")


def test_builtin_networks_do_not_need_spandrel(
    fresh_imports: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    save_weights(tmp_path / "w.pth", network_spec("ultra_lite", 4).build().state_dict(), None)
    assert load_network(tmp_path / "w.pth").spec.name == "ultra_lite"
