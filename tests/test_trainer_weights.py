"""Weight files: compatibility with spandrel and other formats, and errors for unsuitable files."""

import importlib
import json
import pickle
import re
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from srshards.errors import RunError, UsageError
from trainer.models import BuiltInSpec, Network, network_spec
from trainer.models.spandrel_import import load_spandrel
from trainer.models.weights import load_network, read_weights, save_weights
from trainer.models.weights_layout import built_in_spec
from trainer.training.network import initial_weights

NAMES = ("ultra_lite", "lite", "standard")
COMPACT = BuiltInSpec("compact", 4, 8, 3)
RRDB = BuiltInSpec("rrdb", 4, 32, 2, 32)  # spandrel knows a growth of 32 only
State = dict[str, Tensor]


def load_into(network: Network, path: Path) -> None:
    network.load_state_dict(initial_weights(path, network.spec))


@pytest.fixture(scope="session")
def spandrel() -> Any:
    """The package with which most tools load weights."""
    return load_spandrel()


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


# ---- writing


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in NAMES for scale in (1, 2, 4)] + [("lite", 3)])
def test_spandrel_gives_the_same_output(name: str, scale: int, tmp_path: Path, spandrel: Any) -> None:
    network = network_spec(name, scale).build(1).eval()
    save_weights(tmp_path / "w.pth", network.state_dict(), None)
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "w.pth")
    assert theirs.scale == scale
    for size in ((16, 20), (11, 7)):
        images = noise(1, 3, *size)
        with torch.no_grad():
            assert float((network(images) - theirs.model.eval()(images)).abs().max()) <= 1e-6, size
    assert load_network(tmp_path / "w.pth").spec == network.spec


@pytest.mark.parametrize("spec", [network_spec("standard", 3), BuiltInSpec("rrdb", 3, 16, 1, 32)])
def test_spandrel_refuses_rrdb_at_3x(spec: BuiltInSpec, tmp_path: Path, spandrel: Any) -> None:
    save_weights(tmp_path / "w.pth", spec.build().state_dict(), None)
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_file(tmp_path / "w.pth")
    assert load_network(tmp_path / "w.pth").spec == spec


def test_saved_files_contain_plain_tensors_only(tmp_path: Path) -> None:
    network = COMPACT.build().to(memory_format=torch.channels_last).half()
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in network.state_dict(keep_vars=True).items()}
    big = torch.zeros(1_000_000)
    ema = {f"module.{name}": big[: tensor.numel()].view(tensor.shape) for name, tensor in network.state_dict().items()}
    save_weights(tmp_path / "new" / "w.pth", wrapped, ema)

    content = torch.load(tmp_path / "new" / "w.pth", weights_only=True)
    assert type(content) is dict and list(content) == ["params", "params_ema"]
    for state in content.values():
        assert type(state) is dict and list(state) == list(COMPACT.shapes())
        for name, tensor in state.items():
            assert type(tensor) is Tensor and tensor.dtype == torch.float32 and tensor.shape == COMPACT.shapes()[name]
            assert tensor.is_contiguous() and not tensor.requires_grad and tensor.device.type == "cpu"
    assert (tmp_path / "new" / "w.pth").stat().st_size < 100_000, "a view was saved with its complete storage"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["w.pth"]


def test_params_ema_is_omitted_without_ema(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", COMPACT.build().state_dict(), None)
    assert list(torch.load(tmp_path / "w.pth", weights_only=True)) == ["params"]


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """Makes writes fail beyond a number of bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("sizes", [[100], 20 * [100_000], [1_000_000]])
def test_a_failed_write_keeps_the_previous_file(
    sizes: list[int], limit_file_size: Callable[[int], None], tmp_path: Path
) -> None:
    """It fails when the file is closed, between tensors, or within one."""
    path = tmp_path / "w.pth"
    path.write_bytes(b"before")
    limit_file_size(sum(sizes) * 2)
    with pytest.raises(RunError, match=f"cannot write {re.escape(str(path))}: File too large"):
        save_weights(path, {str(number): torch.zeros(size) for number, size in enumerate(sizes)}, None)
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


# ---- reading


def test_params_ema_is_preferred(tmp_path: Path) -> None:
    params, average = COMPACT.build(1).state_dict(), COMPACT.build(2).state_dict()
    save_weights(tmp_path / "w.pth", params, average)
    assert equal(read_weights(tmp_path / "w.pth"), average)
    assert equal(read_weights(saved(tmp_path / "n.pth", {"params": dict(params), "params_ema": None})), params)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params_ema": state},
        lambda state: {"state_dict": state, "epoch": 3, "optimizer_states": [1]},
        lambda state: {"model": {"state_dict": state}, "iter": 7},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"params": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"netG.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: tensor.double() for name, tensor in state.items()},
    ],
)
@pytest.mark.parametrize("spec", [COMPACT, RRDB])
def test_common_wrappers_are_removed(spec: BuiltInSpec, wrap: Callable[[State], object], tmp_path: Path) -> None:
    state = dict(spec.build().state_dict())
    read = read_weights(saved(tmp_path / "w.pt", wrap(state)))
    assert equal(read, state)
    assert all(tensor.dtype == torch.float32 for tensor in read.values())


def test_half_precision_legacy_format_and_safetensors_load(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in COMPACT.build().state_dict().items()}
    full = {name: tensor.float() for name, tensor in state.items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "w.safetensors", tmp_path / "old.pth", saved(tmp_path / "half.pth", state)):
        assert equal(read_weights(path), full)
        network = load_network(path)
        assert network.spec == COMPACT and not network.training


def bsrgan_names(state: Mapping[str, Tensor]) -> State:
    """Rename parameters to the names of BSRGAN."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"body\.(\d+)\.rdb", r"RRDB_trunk.\1.RDB", name)
        name = name.replace("conv_body", "trunk_conv").replace("conv_up", "upconv").replace("conv_hr", "HRconv")
        renamed[name] = tensor
    return renamed


def esrgan_names(state: Mapping[str, Tensor]) -> State:
    """Rename parameters to the positions of layers in the original ESRGAN, at 4x."""
    blocks = sum(name.endswith("rdb1.conv1.weight") for name in state)
    positions = {"conv_first": "0", "conv_body": f"1.sub.{blocks}", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8"}
    renamed = {}
    for name, tensor in state.items():
        layer, kind = name.rsplit(".", 1)
        inner = re.sub(r"body\.(\d+)\.rdb(\d)\.conv(\d)", r"1.sub.\1.RDB\2.conv\3.0", layer)
        renamed[f"model.{inner if inner != layer else {**positions, 'conv_last': '10'}[layer]}.{kind}"] = tensor
    return renamed


@pytest.mark.parametrize("rename", [esrgan_names, bsrgan_names])
def test_older_names_load_as_in_spandrel(
    rename: Callable[[Mapping[str, Tensor]], State], tmp_path: Path, spandrel: Any
) -> None:
    network = RRDB.build(3).eval()
    older = rename(network.state_dict())
    assert not older.keys() & {"conv_body.weight", "conv_hr.weight", "body.0.rdb1.conv1.weight"}
    path = saved(tmp_path / "w.pth", older)
    assert equal(read_weights(path), network.state_dict())
    images = noise(1, 3, 8, 9)
    theirs = spandrel.ModelLoader().load_from_file(path)
    with torch.no_grad():
        ours = load_network(path)(images)
        assert torch.equal(ours, network(images))
        assert float((ours - theirs.model.eval()(images)).abs().max()) <= 1e-6


def published_compact() -> State:
    """Return the names and shapes of realesr-animevideov3.pth: 17 convolutions with PReLU and a last one."""
    state = {}
    for index in range(0, 34, 2):
        state[f"body.{index}.weight"] = torch.zeros(64, 3 if index == 0 else 64, 3, 3)
        state[f"body.{index}.bias"] = torch.zeros(64)
        state[f"body.{index + 1}.weight"] = torch.zeros(64)
    return {**state, "body.34.weight": torch.zeros(48, 64, 3, 3), "body.34.bias": torch.zeros(48)}


def published_rrdb() -> State:
    """Return the names and shapes of RealESRGAN_x4plus.pth."""
    convs = {"conv_first": (64, 3)}
    for block in range(23):
        for dense in (1, 2, 3):
            for conv in (1, 2, 3, 4, 5):
                convs[f"body.{block}.rdb{dense}.conv{conv}"] = (64 if conv == 5 else 32, 64 + 32 * (conv - 1))
    convs |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (64, 64)) | {"conv_last": (3, 64)}
    weights = {f"{name}.weight": torch.zeros(*shape, 3, 3) for name, shape in convs.items()}
    return weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in convs.items()}


def test_official_files_load(tmp_path: Path) -> None:
    compact = saved(tmp_path / "realesr-animevideov3.pth", {"params": published_compact()})
    rrdb = saved(tmp_path / "RealESRGAN_x4plus.pth", {"params_ema": published_rrdb()})
    assert load_network(compact).spec == network_spec("lite", 4)
    assert load_network(rrdb).spec == network_spec("standard", 4)
    network = network_spec("lite", 4).build()
    load_into(network, compact)
    assert all(not bool(tensor.any()) for tensor in network.state_dict().values())


# ---- detecting the network


@pytest.mark.parametrize("spec", [network_spec(name, scale) for name in NAMES for scale in (1, 2, 3, 4)])
def test_every_model_is_recognised(spec: BuiltInSpec) -> None:
    assert built_in_spec({name: torch.empty(shape, device="meta") for name, shape in spec.shapes().items()}) == spec


@pytest.mark.parametrize(
    "spec",
    [BuiltInSpec("compact", 8, 5, 1), BuiltInSpec("compact", 7, 16, 0), BuiltInSpec("rrdb", 2, 6, 3, 5)],
)
def test_other_widths_are_recognised(spec: BuiltInSpec) -> None:
    assert built_in_spec(spec.build().state_dict()) == spec


def without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        (
            COMPACT,
            lambda state: without(state, "body.3.weight", "body.2.bias"),
            r"looks like compact 8x3 at 4x, but 2 missing \(body.2.bias, body.3.weight\); supported are SRVGG",
        ),
        (
            RRDB,
            lambda state: without(state, *[name for name in state if name.startswith("body.0.rdb2")]),
            r"but 10 missing \(body.0.rdb2.conv1.weight, .*, \.\.\.\)",
        ),
        (COMPACT, lambda state: state | {"odd.weight": torch.ones(3)}, r"but 1 unexpected \(odd.weight\)"),
        (
            COMPACT,
            lambda state: state | {"body.4.weight": torch.ones(8, 8, 1, 1)},
            r"1 of another shape \(body.4.weight \[8, 8, 1, 1\] instead of \[8, 8, 3, 3\]\)",
        ),
        (
            COMPACT,
            lambda state: without(state, *[f"body.{n}.weight" for n in (1, 3, 5, 7)]),  # LeakyReLU instead of PReLU
            r"but 4 missing \(body.1.weight, body.3.weight, body.5.weight, body.7.weight\)",
        ),
        (
            RRDB,
            lambda state: without(state, "conv_hr.weight", "conv_hr.bias"),
            r"looks like rrdb 32x2, growth 32 at 4x, but 2 missing \(conv_hr.weight, conv_hr.bias\)",
        ),
        (
            RRDB,
            lambda state: state | {"conv_first.weight": torch.ones(32, 1, 3, 3)},  # grey images
            r"this ESRGAN maps images of 1 channel to 3; pass a network for RGB images",
        ),
        (
            COMPACT,
            lambda state: {"layers.0.weight": torch.ones(3)},
            r"weights of an unknown network; supported are .*; found 1 parameters: layers.0.weight \[3\]$",
        ),
        (
            BuiltInSpec("compact", 1, 4, 1),
            lambda state: state | {"body.4.weight": torch.ones(243, 4, 3, 3), "body.4.bias": torch.ones(243)},
            r"compact 4x1 does not support 9x, only 1x, .*; found 8 parameters: body.0.weight",
        ),
        (
            RRDB,
            lambda state: state | {"body.9999999999.rdb1.conv1.weight": torch.ones(3)},  # too deep to build
            r"weights of an unknown network",
        ),
    ],
)
def test_mismatching_weights_are_described(
    spec: BuiltInSpec, change: Callable[[State], State], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "w.pth", change(dict(spec.build().state_dict())))
    for load in (load_network, lambda path: load_into(spec.build(), path)):
        with pytest.raises(UsageError, match=message) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_rrdb_at_2x_without_folding_is_opened_by_spandrel(tmp_path: Path) -> None:
    state = without(RRDB.build().state_dict(), "conv_up2.weight", "conv_up2.bias")  # as in BSRGAN's 2x
    network = load_network(saved(tmp_path / "w.pth", state))
    assert (network.spec.architecture, network.scale) == ("ESRGAN", 2)
    assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 10, 14)


def test_esrgan_names_of_another_scale_are_refused(tmp_path: Path) -> None:
    state = esrgan_names(RRDB.build().state_dict())
    at_8x = {name.replace("model.10.", "model.13.").replace("model.8.", "model.11."): state[name] for name in state}
    at_8x |= {"model.9.weight": state["model.6.weight"], "model.9.bias": state["model.6.bias"]}
    with pytest.raises(UsageError, match=r"4 missing \(conv_hr.weight, .*6 unexpected \("):
        load_network(saved(tmp_path / "w.pth", at_8x))


# ---- loading into a network


def test_load_into_loads_matching_weights(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", COMPACT.build(1).state_dict(), None)
    network = COMPACT.build(2)
    load_into(network, tmp_path / "w.pth")
    assert equal(network.state_dict(), COMPACT.build(1).state_dict()) and network.training


def test_load_into_refuses_other_networks(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", BuiltInSpec("rrdb", 1, 8, 1, 4).build().state_dict(), None)
    network = RRDB.build(1)
    message = f"weights {tmp_path}/w.pth are for rrdb 8x1, growth 4 at 1x, but this run trains rrdb 32x2, growth 32"
    with pytest.raises(UsageError, match=message):
        load_into(network, tmp_path / "w.pth")
    assert equal(network.state_dict(), RRDB.build(1).state_dict())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_values_are_refused(value: float, tmp_path: Path) -> None:
    state = dict(COMPACT.build().state_dict())
    state["body.2.weight"][1, 2, 0, 1] = value
    path = saved(tmp_path / "w.pth", state)
    message = r"w.pth: 1 of 14 parameters have values that are not finite \(body.2.weight\): the training diverged"
    network: Network = COMPACT.build(1)
    with pytest.raises(UsageError, match=message):
        load_into(network, path)
    assert equal(network.state_dict(), COMPACT.build(1).state_dict())
    with pytest.raises(UsageError, match=message):
        load_network(path)


# ---- invalid files


class Trap:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return importlib.import_module, ("trap_that_must_not_be_imported",)


def cut_off(path: Path) -> None:
    state = dict(COMPACT.build().state_dict())
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def training_state(path: Path) -> None:
    network = COMPACT.build()
    optimizer = torch.optim.Adam(network.parameters())
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 10}, path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pth", lambda path: None, "no such file: {}; pass a .pth, .pt or .safetensors file"),
        ("w", Path.mkdir, r"{} is a folder; pass a weights file, e.g. "),
        (
            "w.pth",
            lambda path: path.write_bytes(b""),
            "^{} is not a weights file: expected a file saved by PyTorch, found an empty file$",
        ),
        ("w.pth", lambda path: path.write_text("hello"), "expected a file saved by PyTorch, found .* b'hello'$"),
        (
            "w.safetensors",
            lambda path: Image.new("L", (9, 9)).save(path, "PNG"),
            r"^{} is not a weights file: expected a .safetensors file, found a file that starts with b'.x89PNG",
        ),
        ("w.pth", cut_off, "cannot read weights from {}: the file is damaged or truncated, or .* download it again"),
        ("w.safetensors", cut_off, "cannot read weights from {}: the file is damaged or truncated"),
        ("w.pth", lambda path: path.write_bytes(pickle.dumps(Trap())), r"{}: .* objects other than tensors; download"),
        ("w.pth", lambda path: torch.save(nn.Conv2d(1, 1, 1), path), "{}: .* save only its state_dict"),
        ("state.pt", training_state, "{} is a training state, .* not weights; pass a .pth file of the run"),
        ("w.pth", lambda path: torch.save({}, path), "{} contains no weights: expected a dict .*; found nothing"),
        ("w.pth", lambda path: torch.save({"epoch": 1}, path), "{} contains no weights: .*; found epoch$"),
        ("w.pth", lambda path: torch.save([torch.ones(3)], path), "{} contains no weights: .*; found a list$"),
        ("w.pth", lambda path: torch.save(torch.ones(3), path), "{} contains no weights: .*; found a Tensor$"),
        (
            "w.pth",
            lambda path: torch.save({"a.weight": torch.ones(3, dtype=torch.int8)}, path),
            r"{}: expected floating-point weights, but a.weight are integers",
        ),
    ],
)
def test_invalid_files_are_described(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    write(path)
    for load in (read_weights, load_network, lambda path: load_into(COMPACT.build(), path)):
        with pytest.raises(UsageError, match=message.format(re.escape(str(path)))):
            load(path)
    assert "trap_that_must_not_be_imported" not in sys.modules


def sparse(*shape: int) -> Tensor:
    indices = torch.zeros(len(shape), 0, dtype=torch.long)
    return torch.sparse_coo_tensor(indices, torch.zeros(0), shape, check_invariants=False)


def jagged() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)])


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"params": {}, "params_ema": state}])
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda: sparse(8, 3, 3, 3), "but {} are sparse;"),
        (lambda: sparse(60_000, 60_000, 3, 3), "but {} are sparse;"),
        (lambda: torch.ones(8, 27).to_sparse_csr(), "but {} are sparse;"),
        (lambda: torch.empty(180_000, 180_000, device="meta"), r"but {} have no values \(device meta\);"),
        (jagged, r"but {} are nested tensors;"),
        (lambda: torch.ones(8, 3, 3, 3, dtype=torch.complex64), "but {} are complex;"),
        (lambda: torch.ones(8, 3, 3, 3).bool(), r"but {} are integers \(quantised\?\);"),
        (lambda: torch.quantize_per_tensor(torch.ones(8, 3, 3, 3), 0.1, 0, torch.qint8), "but {} are integers"),
        (
            lambda: torch.zeros(1).expand(60_000, 60_000, 3, 3),
            r"tensors need 129,600,\d+,\d+ bytes, but the file has \d+,\d+: the",
        ),
        (
            lambda: torch.zeros(1, dtype=torch.half).expand(60_000, 60_000, 3, 3),
            r"need 64,800,\d+,\d+ bytes, but the file has",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_unusual_tensors_are_refused(
    odd: Callable[[], Tensor], message: str, wrap: Callable[[State], object], tmp_path: Path
) -> None:
    path = saved(tmp_path / "w.pth", wrap({**COMPACT.build().state_dict(), "body.0.weight": odd()}))
    for load in (read_weights, load_network, lambda path: load_into(COMPACT.build(), path)):
        with pytest.raises(UsageError, match=message.format("body.0.weight")) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith("save its state_dict again with each tensor dense, in float32 and cloned")


def test_expanded_tensors_are_refused(tmp_path: Path) -> None:
    """The shapes are consistent, so that a file of 4 KB would create a network of 130 GB."""
    spec = BuiltInSpec("compact", 2, 60_000, 1)
    path = saved(tmp_path / "w.pth", {name: torch.zeros(1).expand(shape) for name, shape in spec.shapes().items()})
    with pytest.raises(
        UsageError, match=r"its tensors need 129,\d+,\d+,\d+ bytes, but the file has \d,\d+: the file is"
    ):
        load_network(path)


def test_a_compressed_file_is_refused_before_decompression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "w.pth", {"body.0.weight": torch.zeros(1_000_000)})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    monkeypatch.delattr(torch, "load")
    with pytest.raises(
        UsageError, match=r"its tensors need 4,\d+,\d+ bytes, but the file has \d,\d+: the file is compressed"
    ):
        read_weights(path)


@pytest.mark.parametrize(("dtype", "message"), [("C64", "are complex"), ("F4", "are 4-bit floats"), ("I8", "are int")])
def test_safetensors_of_other_dtypes_are_refused(dtype: str, message: str, tmp_path: Path) -> None:
    size = {"C64": 8, "F4": 1, "I8": 1}[dtype]
    shape = [2] if dtype == "F4" else [1]
    header = json.dumps({"a.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(UsageError, match=rf"but a.weight {message}"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("spec", [COMPACT, RRDB])
def test_many_unknown_names_do_not_build_a_network(
    spec: BuiltInSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"body.{number}.rdb1.conv1.weight": torch.ones(1) for number in range(7, 3000)}
    path = saved(tmp_path / "w.pth", {**spec.build().state_dict(), **many})
    monkeypatch.delattr(BuiltInSpec, "shapes")
    with pytest.raises(UsageError, match=r"weights of an unknown network; .*; found 30\d\d parameters: "):
        load_network(path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("n" * 1_000_000, r"\(n{100}\.\.\.\)"),
        ("a\nb\x1b[31m", "\\(a\ufffdb\ufffd\\[31m\\)"),
        (f"body.{'9' * 5000}.x", r"\(body\.9{95}\.\.\.\)"),
    ],
)
def test_odd_names_are_escaped_and_truncated(name: str, shown: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {**COMPACT.build().state_dict(), name: torch.ones(1)})
    with pytest.raises(UsageError, match=rf"looks like compact 8x3 at 4x, but 1 unexpected {shown}; supported are"):
        load_network(path)


@pytest.mark.parametrize("key", [1, (1, 2), None])
def test_names_other_than_strings_are_refused(key: object, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {key: torch.ones(1)})
    with pytest.raises(UsageError, match=rf"w.pth contains no weights: .*; found a {type(key).__name__}$"):
        read_weights(path)


def test_a_parameter_with_two_names_is_refused(tmp_path: Path) -> None:
    state = RRDB.build().state_dict()
    path = saved(tmp_path / "w.pth", {**state, "RRDB_trunk.0.RDB1.conv1.weight": torch.ones(32, 32, 3, 3)})
    with pytest.raises(UsageError, match=r"w.pth: body.0.rdb1.conv1.weight occurs twice, by its name and by an older"):
        load_network(path)


def test_empty_tensors_are_refused(tmp_path: Path) -> None:
    state = dict(RRDB.build().state_dict())
    path = saved(tmp_path / "w.pth", {**state, "body.0.rdb1.conv1.weight": torch.ones(10**15, 0, 3, 3)})
    with pytest.raises(UsageError, match="weights of an unknown network"):
        load_network(path)
