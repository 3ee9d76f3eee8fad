"""Options that the benchmarks share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.common import RESULTS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

photos_option: Decorator = click.option("--photos", type=click.Path(path_type=Path), help="Folder of real photos.")


def scratch_option(what: str) -> Decorator:
    """Where a benchmark writes, and what it needs there."""
    return click.option(
        "--scratch",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help=f"{what}  [default: the system's temporary folder]",
    )


def output_option(name: str) -> Decorator:
    """The result's file, by default of this name among the others."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        default=RESULTS / name,
        show_default="in results/",
        help="The result.",
    )
