"""ONNX export: dynamic sizes, the same output as PyTorch, a single file, and no invalid file."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import all_files

from srshards.errors import RunError, UsageError
from tests.drill.warm import run_warm
from trainer.models import BuiltInSpec, Network, export
from trainer.models.export import MAX_DIFFERENCE, export_onnx
from trainer.models.spandrel_network import spandrel_spec
from trainer.models.weights import load_network, save_weights

pytestmark = pytest.mark.slow

COMPACT = BuiltInSpec("compact", 3, 8, 2)
NARROW = [COMPACT, BuiltInSpec("rrdb", 3, 8, 1, 4), BuiltInSpec("rrdb", 1, 8, 1, 4)]  # 1x: as 4x, after folding


def test_every_architecture_of_this_package_is_tested() -> None:
    built_in = {name for name, network in Network.built_in.items() if network.__module__.startswith("trainer.")}
    assert {spec.architecture for spec in NARROW} == built_in, "add a small one to NARROW"


def weights_of(network: Network, folder: Path) -> Path:
    save_weights(folder / "w.pth", network.state_dict(), None)
    return folder / "w.pth"


def signature_of(value: Any) -> tuple[str, int, list[Any]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]


@pytest.mark.parametrize("spec", NARROW, ids=lambda spec: f"{spec.architecture} {spec.scale}x")
def test_the_model_accepts_any_size(spec: BuiltInSpec, tmp_path: Path) -> None:
    weights = weights_of(spec.build(1), tmp_path)
    report = export_onnx(weights, tmp_path / "out" / "w.onnx")

    path = tmp_path / "out" / "w.onnx"
    assert [file.name for file in path.parent.iterdir()] == ["w.onnx"], "a single file"
    assert (report.path, report.spec, report.opset) == (path, spec, 18)
    assert report.num_bytes == path.stat().st_size and len(report.sizes) >= 3
    assert 0 <= report.difference <= MAX_DIFFERENCE

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    if spec.architecture == "compact":  # as standard operators, which other tools optimise
        assert {"Conv", "PRelu", "DepthToSpace"} <= {node.op_type for node in model.graph.node}
    times = f"{spec.scale}*" if spec.scale > 1 else ""
    assert [signature_of(value) for value in model.graph.input] == [("input", 1, ["batch", 3, "height", "width"])]
    assert [signature_of(value) for value in model.graph.output] == [
        ("output", 1, ["batch", 3, f"{times}height", f"{times}width"])
    ]
    assert str(Path(__file__).parent.parent).encode() not in path.read_bytes(), "contains a path of this machine"

    session, network = onnxruntime.InferenceSession(path), load_network(weights)
    for batch, height, width in ((1, 1, 1), (1, 2, 3), (3, 16, 16), (1, 5, 64), (2, 37, 10)):
        images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(2))
        (found,) = session.run(None, {"input": images.numpy()})
        with torch.no_grad():
            assert float((network(images) - torch.from_numpy(found)).abs().max()) < 1e-5, (batch, height, width)


def test_the_exporter_prints_nothing(tmp_path: Path) -> None:
    """In a separate process, in which its packages are not imported yet, and whose log pytest does not capture."""
    path = tmp_path / "模型 1.onnx"
    result = run_warm("trainer", "export", "--weights", weights_of(COMPACT.build(1), tmp_path), "-o", path)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{path}: compact 8x2, 3x, opset 18, ") and result.out.count("\n") == 1
    assert all_files(tmp_path) == {"w.pth", path.name}


# ---- networks of spandrel


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 4, "norm": False}),
        ("RealPLKSR", {"dim": 8, "n_blocks": 1, "kernel_size": 5, "layer_norm": True}),
    ],
)
def test_convolutional_networks_are_exported(architecture: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    weights = weights_of(spandrel_spec(architecture, 2, arguments).build(), tmp_path)
    report = export_onnx(weights, tmp_path / "w.onnx")
    assert report.difference <= 1e-5 and {size[0] for size in report.sizes} == {1, 2}


def test_networks_with_windows_are_exported_for_single_images(tmp_path: Path) -> None:
    """Their code computes the batch from sizes; exported for two images, SwinIR's mask is wrong for one."""
    size = {"embed_dim": 4, "num_heads": [1], "depths": [2], "window_size": 8, "upsampler": "pixelshuffledirect"}
    weights = weights_of(spandrel_spec("SwinIR", 2, size).build(), tmp_path)
    assert {size[0] for size in export_onnx(weights, tmp_path / "w.onnx").sizes} == {1}
    (images,) = onnx.load(tmp_path / "w.onnx").graph.input
    assert signature_of(images) == ("input", 1, [1, 3, "height", "width"])


def test_safmn_is_refused(tmp_path: Path) -> None:
    """Its pooling to a share of the height and width fixes the sizes in the file."""
    weights = weights_of(spandrel_spec("SAFMN", 2, {"dim": 8, "n_blocks": 1}).build(), tmp_path)
    with pytest.raises(UsageError, match=r"cannot export SAFMN to ONNX with dynamic sizes \(the graph holds for"):
        export_onnx(weights, tmp_path / "w.onnx")
    assert all_files(tmp_path) == {"w.pth"}


# ---- failures


@pytest.fixture()
def weights(tmp_path: Path) -> Path:
    return weights_of(COMPACT.build(1), tmp_path)


@pytest.fixture(scope="module")
def exported() -> bytes:
    """The ONNX model of `weights`."""
    content: bytes = export._onnx_model(COMPACT.build(1).eval()).SerializeToString()
    return content


def patch_exporter(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto) -> None:
    monkeypatch.setattr(export, "_onnx_model", lambda network: model)


@pytest.mark.parametrize("offset", [0.001, float("nan")])
def test_a_model_with_different_output_is_not_written(
    offset: float, weights: Path, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.ModelProto.FromString(exported)
    last = next(tensor for tensor in model.graph.initializer if tensor.name == "body.6.weight")
    last.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(last) + np.float32(offset), last.name))
    patch_exporter(monkeypatch, model)
    (weights.parent / "w.onnx").write_text("previous")
    with pytest.raises(RunError, match=r"w.pth differs from PyTorch by .*, more than 0.0001, and was not written"):
        export_onnx(weights, weights.parent / "w.onnx")
    assert (weights.parent / "w.onnx").read_text() == "previous"
    assert {path.name for path in weights.parent.iterdir()} == {"w.pth", "w.onnx"}


@pytest.mark.parametrize("fault", ["no nodes", "fixed size", "other scale"])
def test_an_invalid_model_is_not_written(
    fault: str, weights: Path, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.ModelProto.FromString(exported)
    if fault == "no nodes":
        del model.graph.node[:]
    elif fault == "fixed size":
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 20
    else:
        save_weights(weights, BuiltInSpec("compact", 2, 8, 2).build(1).state_dict(), None)
    patch_exporter(monkeypatch, model)
    with pytest.raises(RunError, match=r"the ONNX export of .*w.pth is not valid and was not written: "):
        export_onnx(weights, weights.parent / "w.onnx")
    assert [path.name for path in weights.parent.iterdir()] == ["w.pth"]


def test_an_exporter_failure_is_reported(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: Network) -> Any:
        raise ValueError("no such operator")

    monkeypatch.setattr(export, "_onnx_model", fail)
    with pytest.raises(RunError, match=r"PyTorch .* could not export .*w.pth to ONNX \(no such operator\); try newer"):
        export_onnx(weights, weights.parent / "w.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_reported(package: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"requires {package}, which is not .*sr-shards\[onnx\]"):
        export_onnx(weights, weights.parent / "w.onnx")
