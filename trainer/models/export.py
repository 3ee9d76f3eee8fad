"""Weights to ONNX: a file that takes pictures of any size, and gets its name only if it computes what PyTorch does."""

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

from srshards.errors import RunError, UsageError
from srshards.extras import install_command
from srshards.storage.files import replacing, writing
from trainer.models import Network, NetworkSpec
from trainer.models.weights import load_network

OPSET = 18  # what PyTorch's exporter writes by itself; a higher one only shuts out older runtimes
MAX_DIFFERENCE = 1e-4  # of a value in [0, 1]: a fortieth of a grey level; float32 in another order gives about 1e-6
# Batch, height, width of what both are asked for: odd, wide, tall, and no multiple of 2 or 4 among them.
SIZES = ((1, 17, 23), (2, 9, 30), (1, 31, 14))


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near it is to PyTorch."""

    path: Path
    spec: NetworkSpec
    opset: int
    num_bytes: int
    sizes: tuple[tuple[int, int, int], ...]  # batch, height, width of each comparison
    difference: float  # the largest of all values compared
    max_difference: float  # what would have been too much


def export_onnx(weights: Path, output: Path) -> ExportReport:
    """Write the network in `weights` as the ONNX file `output`; it exists only if it passed all checks.

    Its input `input` is N x 3 x H x W float32 RGB in [0, 1], its output `output` N x 3 x scale·H x scale·W, not
    clamped; N, H and W are free. Everything is in the one file. UsageError if the weights or packages are missing,
    RunError if the file does not compute what PyTorch does.
    """
    onnx, onnxruntime, _ = [_package(name) for name in ("onnx", "onnxruntime", "onnxscript")]
    network = load_network(weights)
    try:
        model = _onnx_model(network)
        model.doc_string = "trainer export"  # by which `FileToWrite` knows the file again
        content = model.SerializeToString()
    except Exception as error:  # the exporter's errors have no base class of their own either
        raise RunError(
            f"PyTorch {torch.__version__} could not turn {weights} into ONNX: {error}. Try newer versions of torch and "
            "onnxscript"
        ) from error
    with writing(output), replacing(output) as temporary:
        temporary.write_bytes(content)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors
            session = onnxruntime.InferenceSession(str(temporary), options, providers=["CPUExecutionProvider"])
            difference = max(_difference(network, session, *size) for size in SIZES)
        except Exception as error:  # whatever onnx and onnxruntime raise; they share no base class
            raise RunError(f"the ONNX file of {weights} is not valid, nothing is written: {error}") from error
        if not difference <= MAX_DIFFERENCE:
            raise RunError(
                f"the ONNX file of {weights} differs from PyTorch by {difference:.2g}, more than {MAX_DIFFERENCE:g}; "
                "nothing is written. Try other versions of torch, onnxscript and onnxruntime"
            )
    return ExportReport(output, network.spec, OPSET, len(content), SIZES, difference, MAX_DIFFERENCE)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"ONNX export needs {name}, which is not installed. {install_command(name)}") from error


def _onnx_model(network: Network) -> Any:
    """An onnx.ModelProto with free batch, height and width."""
    # The exporter on torch.export, not the older one that records a run: that one is deprecated, writes the sizes of
    # the recorded run into the file wherever Python computed with them, and says nothing. torch.export either proves
    # that the graph holds for all sizes or fails. The price is 20 s for `standard` instead of one.
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    example = torch.zeros(2, 3, 20, 28)  # no size is 1, which torch.export would take for a constant
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
    # Notes for the exporter's own developers: source lines, with the paths of this machine in them.
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    for initializer in model.graph.initializer:
        initializer.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    dims = model.graph.output[0].type.tensor_type.shape.dim
    for axis, name in ((2, "height"), (3, "width")):  # torch.export has formulas here, such as Min(height, 4*...)
        dims[axis].dim_param = f"{network.scale}*{name}" if network.scale > 1 else name
    return model


def _difference(network: Network, session: Any, batch: int, height: int, width: int) -> float:
    """The largest difference between PyTorch and `session` on noise of one size."""
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
    (found,) = session.run(["output"], {"input": images.numpy()})
    if found.shape != tuple(expected.shape):
        raise ValueError(f"gives {found.shape} for {tuple(images.shape)} where PyTorch gives {tuple(expected.shape)}")
    return float((torch.from_numpy(found) - expected).abs().max())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter logs, warns of and prints: no torchvision, its own deprecations, rewrite counts."""
    logged = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Some versions of onnxscript print whatever `verbose` says.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logged)
