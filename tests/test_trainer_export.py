"""ONNX export: dynamic sizes, the same output as PyTorch, a single file, and no invalid file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from srshards.errors import RunError, UsageError
from trainer.models import BuiltInSpec, Network, export
from trainer.models.export import MAX_DIFFERENCE, export_onnx
from trainer.models.weights import load_network, save_weights

pytestmark = pytest.mark.slow

NARROW = [
    BuiltInSpec("compact", 4, 12, 3),
    BuiltInSpec("compact", 3, 8, 2),
    BuiltInSpec("rrdb", 4, 8, 1, 4),
    BuiltInSpec("rrdb", 3, 8, 1, 4),
    BuiltInSpec("rrdb", 1, 8, 1, 4),
]


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
    """In a separate process, because pytest captures some log output."""
    code = (
        "import sys, pathlib; from trainer.models import export; export.export_onnx(*map(pathlib.Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, weights_of(NARROW[1].build(1), tmp_path), tmp_path / "w.onnx"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture()
def weights(tmp_path: Path) -> Path:
    return weights_of(NARROW[1].build(1), tmp_path)


@pytest.fixture(scope="module")
def exported() -> bytes:
    """The ONNX model of `weights`."""
    content: bytes = export._onnx_model(NARROW[1].build(1).eval()).SerializeToString()
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
