"""`python -m trainer models`: the networks that `--model` names, with their size, arithmetic and memory."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem

from srshards.errors import UsageError
from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import Bar, columns, complete_word
from trainer.catalogue import NETWORKS, NamedNetwork, named_network
from trainer.training.config import DEFAULT_PATCH_SIZE, TrainConfig

BATCH = TrainConfig.batch_size
_NARROW = 80  # columns
_MIN_USE = 24  # columns for the suggested use beside the figures
_FIGURES = ("parameters", "forward_flops", "training_bytes", "multiple_px", "patch_size")


@dataclass(frozen=True)
class Listed:
    """A network of the catalogue, with what could be found out. `missing` says what has to be installed for more."""

    row: NamedNetwork
    scales: tuple[int, ...] | None = None
    figures: dict[str, int] | None = None  # of _FIGURES; None if the network does not support the scale
    missing: str | None = None

    def as_json(self) -> dict[str, Any]:
        row = self.row
        return {
            "name": row.name,
            "architecture": row.architecture,
            "arguments": dict(row.arguments),
            **(self.figures or dict.fromkeys(_FIGURES)),
            "scales": self.scales,
            "lr": row.lr,
            "use": row.use,
            "source": row.source,
            "missing": self.missing,
        }


def _complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_word(incomplete, NETWORKS)


@click.command("models", cls=Command, short_help="List the networks: parameters, GFLOP, memory, learning rate, use.")
@click.argument("name", required=False, shell_complete=_complete)
@click.option("--scale", type=click.IntRange(1, 8), default=4, show_default=True, help="Scale of the networks.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def models_command(name: str | None, scale: int, as_json: bool) -> None:
    """List the networks that --model names, or describe the network NAME. Nothing is trained: arithmetic and memory
    follow from the shapes of all tensors.

    \b
    Examples:
      python -m trainer models
      python -m trainer models span --scale 2
    """
    rows = [named_network(name)] if name else list(NETWORKS.values())
    with loading():
        import torch

    torch.set_num_threads(1)  # a second one would only wait: the tensors that are computed with are tiny
    listed = [_with_figures(row, scale) for row in Bar(rows, desc="networks", unit="")]
    if name and listed[0].scales and scale not in listed[0].scales:
        raise UsageError(f"--scale {scale}: {name} supports only {_ranges(listed[0].scales)}; pass one of these")
    if as_json:
        found = {"scale": scale, "batch_size": BATCH, "networks": [each.as_json() for each in listed]}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    click.echo(_description(listed[0], scale) if name else _table(listed, scale))
    for missing in dict.fromkeys(each.missing for each in listed if each.missing):
        click.echo(_filled(f"Not computed: {missing}"))


def _with_figures(row: NamedNetwork, scale: int) -> Listed:
    from trainer.models import network_spec, supported_scales
    from trainer.models.cost import training_cost

    try:
        scales = supported_scales(row.name)
    except UsageError as error:  # a package is missing
        return Listed(row, missing=str(error))
    if scale not in scales:
        return Listed(row, scales)
    spec = network_spec(row.name, scale)
    step = scale * spec.multiple_px
    patch_size = -(-DEFAULT_PATCH_SIZE // step) * step  # as the training chooses it
    cost = training_cost(spec, BATCH, patch_size // scale)
    figures = (cost.parameters, cost.forward_flops, cost.training_bytes, spec.multiple_px, patch_size)
    return Listed(row, scales, dict(zip(_FIGURES, figures, strict=True)))


def _table(listed: Sequence[Listed], scale: int) -> str:
    """Return one line per network, with its use below it where the terminal is too narrow.

    Where not even the figures fit, the networks are described one after the other.
    """
    header, *rows = [("network", "params", "GFLOP", "memory", "lr", "scales"), *map(_cells, listed)]
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    lines = ["  ".join(map(_justified, range(len(row)), row, widths)) for row in (header, *rows)]
    uses = ["use", *(each.row.use for each in listed)]
    width, start = columns(sys.stdout) or sys.maxsize, len(lines[0]) + 2
    if start - 2 > width:
        return "\n\n".join(_description(each, scale) for each in listed)
    if width - start >= _MIN_USE:
        lines = [_filled(f"{line}  {use}", start) for line, use in zip(lines, uses, strict=True)]
    else:
        lines = [
            lines[0].rstrip(),
            *(f"{line.rstrip()}\n    {use}" for line, use in zip(lines[1:], uses[1:], strict=True)),
        ]
    legend = (
        f"At {scale}x. GFLOP: forward pass of a patch of the default size ({DEFAULT_PATCH_SIZE} px HR, or the next one "
        "that suits the network); a training step takes about three times that for each patch. Memory: training in "
        f"float32 with --batch-size {BATCH}. lr: default of --lr."
    )
    return "\n".join([*lines, "", _filled(legend)])


def _cells(listed: Listed) -> tuple[str, ...]:
    row, scales = listed.row, _ranges(listed.scales)
    settings = (f"{row.lr:g}", scales)
    if listed.figures is None:
        return (row.name, *["-"] * 3, *settings)
    count, flops, num_bytes = (listed.figures[name] for name in _FIGURES[:3])
    return (row.name, _short(count), f"{flops / 1e9:.2f}", format_bytes(num_bytes), *settings)


def _justified(number: int, cell: str, width: int) -> str:
    return cell.rjust(width) if 0 < number < 5 else cell.ljust(width)


def _short(count: int) -> str:
    """Format a number of parameters: `53.0k`, `16.7M`."""
    return f"{count / 1e6:.1f}M" if count >= 999_950 else f"{count / 1e3:.1f}k"


def _ranges(scales: Sequence[int] | None) -> str:
    """Format scales: `1-4x, 8x`; `-` if they are unknown."""
    if scales is None:
        return "-"
    runs: list[list[int]] = []
    for scale in scales:
        if runs and runs[-1][-1] == scale - 1:
            runs[-1].append(scale)
        else:
            runs.append([scale])
    return ", ".join(f"{run[0]}x" if len(run) == 1 else f"{run[0]}-{run[-1]}x" for run in runs)


def _description(listed: Listed, scale: int) -> str:
    """Return everything about a network, one fact per line."""
    row = listed.row
    facts = {"use": row.use, "architecture": f"{row.architecture}: {_named(row.arguments)}"}
    if listed.figures is not None:
        count, flops, num_bytes, multiple, patch_size = (listed.figures[name] for name in _FIGURES)
        patch = f"patch of {patch_size // scale} px LR ({patch_size} px HR)"
        facts |= {
            "parameters": f"{count:,} at {scale}x",
            "forward pass": f"{flops / 1e9:.2f} GFLOP for a {patch}; a training step: about three times that",
            "memory": f"{format_bytes(num_bytes)} to train in float32 with --batch-size {BATCH}",
            "input size": f"any; multiples of {multiple} px need no padding" if multiple > 1 else "any",
        }
    facts |= {
        "scales": _ranges(listed.scales),
        "--lr": f"{row.lr:g} by default: the peak of AdamW at batches of {BATCH}",
        "source": row.source,
    }
    return "\n".join([row.name, *(_filled(f"  {name:13} {text}", 16) for name, text in facts.items())])


def _named(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def _filled(text: str, indent: int = 0) -> str:
    """Wrap a line to the terminal's width, the following lines indented, in narrow terminals less."""
    width = columns(sys.stdout) or sys.maxsize
    indent = indent if width >= _NARROW else min(indent, 4)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
