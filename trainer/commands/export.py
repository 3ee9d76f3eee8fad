"""`python -m trainer export`: export a network to ONNX."""

from pathlib import Path

import click

from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.params import PATH, FileToWrite
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import say

_OUTPUT = FileToWrite("trainer export", "model.onnx")


@click.command("export", cls=Command, short_help="Export a network to ONNX.")
@click.option(
    "--weights",
    type=PATH,
    required=True,
    help="model.pth or best.pth of a run, or other weights of a network from RGB to RGB.",
)
@click.option(
    "-o",
    "--output",
    type=_OUTPUT,
    default=Path("model.onnx"),
    show_default=True,
    help="Output file; an existing file is replaced only if this command wrote it.",
)
def export_command(weights: Path, output: Path) -> None:
    """Export a network to ONNX with dynamic height and width, and compare its output with PyTorch's.

    \b
    Example:
      python -m trainer export --weights runs/lite-4x/best.pth -o model.onnx
    """
    with loading():
        from trainer.models.export import export_onnx
    report = export_onnx(weights, output)
    sizes = ", ".join(f"{width} x {height}" for _, height, width in report.sizes)
    kind = f"{report.spec.name}, {report.spec.scale}x, opset {report.opset}, {format_bytes(report.num_bytes)}"
    say(f"{report.path}: {kind}; onnxruntime differs from PyTorch by {report.difference:.0e} at {sizes} px")
