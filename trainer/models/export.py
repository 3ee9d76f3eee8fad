"""Export to ONNX with dynamic height and width. The file is written only if its output matches PyTorch's."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srshards.errors import RunError, UsageError
from srshards.extras import install_command
from srshards.storage.files import replacing, writing
from trainer.models import BuiltInSpec, Network, NetworkSpec
from trainer.models.weights import load_network
from trainer.models.weights_layout import first_few

OPSET = 18  # the exporter's default; a higher one would only exclude older runtimes
# Of pixels in [0, 1]: 1/40 of a grey level, where float32 rounding accounts for about 1e-6. For outputs beyond 1, as of
# untrained networks, it is relative to the largest value.
MAX_DIFFERENCE = 1e-4
# Batch, height, width of the compared inputs: odd, wide and tall ones, not multiples of 4.
SIZES = ((1, 17, 23), (2, 9, 30), (1, 31, 14))


@dataclass(frozen=True)
class ExportReport:
    """The written file and its deviation from PyTorch."""

    path: Path
    spec: NetworkSpec
    opset: int
    num_bytes: int
    sizes: tuple[tuple[int, int, int], ...]  # batch, height, width of each comparison
    difference: float  # the largest of all values compared, see MAX_DIFFERENCE


def export_onnx(weights: Path, output: Path) -> ExportReport:
    """Export the network in `weights` to the ONNX file `output`, which is written only if it passes all checks.

    Its input `input` is N x 3 x H x W float32 RGB in [0, 1], its output `output` N x 3 x scale·H x scale·W, not
    clamped; H and W are dynamic, and N for networks that do not work in windows, for which it is 1. The file has no
    external data. UsageError if the weights or a package are missing, the network's output is not finite, or PyTorch
    cannot export this architecture; RunError if the file's output differs from PyTorch's.
    """
    onnx, onnxruntime, _ = [_package(name) for name in ("onnx", "onnxruntime", "onnxscript")]
    network = load_network(weights)
    _check_output(network, weights)
    sizes = SIZES if _has_dynamic_batch(network) else tuple((1, *size[1:]) for size in SIZES)
    try:
        model = _onnx_model(network)
        model.doc_string = "trainer export"  # by which `FileToWrite` recognises the file
        content = model.SerializeToString()
    except Exception as error:  # the exporter's exceptions have no common base class
        raise _refusal(network, weights, error) from error
    with writing(output), replacing(output) as temporary:
        temporary.write_bytes(content)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors
            session = onnxruntime.InferenceSession(str(temporary), options, providers=["CPUExecutionProvider"])
            difference = max(_difference(network, session, *size) for size in sizes)
        except Exception as error:  # those of onnx and onnxruntime have no common base class
            raise RunError(f"the ONNX export of {weights} is not valid and was not written: {error}") from error
        if not difference <= MAX_DIFFERENCE:
            raise RunError(
                f"the ONNX export of {weights} differs from PyTorch by {difference:.2g}, more than "
                f"{MAX_DIFFERENCE:g}, and was not written; try other versions of torch, onnxscript and onnxruntime"
            )
    return ExportReport(output, network.spec, OPSET, len(content), sizes, difference)


def _check_output(network: Network, weights: Path) -> None:
    """Raise UsageError if the output is not finite: it would differ from that of the file by NaN."""
    with torch.inference_mode():
        is_finite = bool(network(_noise(*SIZES[0])).isfinite().all())
    if not is_finite:
        largest = {name: float(values.detach().abs().max()) for name, values in network.named_parameters()}
        name = max(largest, key=largest.__getitem__)
        raise UsageError(
            f"{weights}: the network's output is not finite, because its weights are too large (up to "
            f"{largest[name]:.0e}, in {name}): the training diverged; use weights from an earlier step"
        )


def _noise(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def _has_dynamic_batch(network: Network) -> bool:
    """Return whether the graph may hold for any batch: networks with windows compute their batch size from floats."""
    return network.spec.multiple_px == 1 or isinstance(network.spec, BuiltInSpec)


def _refusal(network: Network, weights: Path, error: Exception) -> UsageError | RunError:
    """Return the error to raise when the exporter fails. Built-in networks can be exported, so for them, a RunError."""
    exporter = f"PyTorch {torch.__version__}"
    if isinstance(network.spec, BuiltInSpec):
        return RunError(
            f"{exporter} could not export {weights} to ONNX ({error}); try newer versions of torch and onnxscript"
        )
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = first_few(line.strip() for line in str(cause).splitlines()[:1]) or type(cause).__name__
    return UsageError(
        f"{weights}: {exporter} cannot export {network.spec.architecture} to ONNX with dynamic sizes ({reason}); use "
        "the weights file itself, which spandrel and chaiNNer open"
    )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"ONNX export requires {name}, which is not installed; {install_command(name)}") from error


def _onnx_model(network: Network) -> Any:
    """Return an onnx.ModelProto with dynamic height and width, and, if possible, a dynamic batch."""
    # Use the exporter based on torch.export, not the deprecated one based on tracing, which silently bakes in the
    # sizes of the traced run wherever Python computes with them. torch.export proves that the graph holds for all
    # sizes, or fails. It takes 20 s for `standard` instead of one.
    sizes = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    batch = 1
    if _has_dynamic_batch(network):
        sizes[0], batch = torch.export.Dim("batch"), 2  # a size of 1 would be a constant
    example = torch.zeros(batch, 3, 20, 28)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=(sizes,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: Any = program.model_proto
    shape = model.graph.input[0].type.tensor_type.shape.dim
    if not (shape[2].dim_param and shape[3].dim_param):  # where the exporter gives up, it says so only in its log
        raise ValueError(f"the graph holds for {shape[3].dim_value} x {shape[2].dim_value} px only")
    # Remove the exporter's debug metadata, which contains source paths of this machine.
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    for initializer in model.graph.initializer:
        initializer.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    dims = model.graph.output[0].type.tensor_type.shape.dim
    for axis, name in ((2, "height"), (3, "width")):  # instead of torch.export's formulas, e.g. Min(height, 4*...)
        dims[axis].dim_param = f"{network.scale}*{name}" if network.scale > 1 else name
    return model


def _difference(network: Network, session: Any, batch: int, height: int, width: int) -> float:
    """Return the largest difference between PyTorch and `session` on noise of the given size."""
    images = _noise(batch, height, width)
    with torch.inference_mode():
        expected = network(images)
    (found,) = session.run(["output"], {"input": images.numpy()})
    if found.shape != tuple(expected.shape):
        raise ValueError(
            f"returns shape {found.shape} for {tuple(images.shape)}, where PyTorch returns {tuple(expected.shape)}"
        )
    return float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max().clamp(min=1))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's logs, warnings and prints: missing torchvision, deprecations, rewrite counts."""
    logged = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Some versions of onnxscript print whatever `verbose` says.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logged)
