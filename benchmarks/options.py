"""The command line of a benchmark."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.common import RESULTS, RunFailedError
from srshards.process.resources import available_cpus
from srshards.terminal.help import Command

OWN_NETWORKS = ("ultra_lite", "lite", "standard")  # those of this project, which the speed of a step is measured with

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def benchmark(function: Callable[..., Any]) -> click.Command:
    """Decorator: make a function a benchmark's command. RunFailedError becomes an error message and exit code 1."""

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except RunFailedError as error:
            raise click.ClickException(str(error)) from error

    settings = {"help_option_names": ["-h", "--help"], "show_default": True}
    return click.command(cls=Command, context_settings=settings)(command)


photos_option: Decorator = click.option("--photos", type=click.Path(path_type=Path), help="Folder of real photos.")
holdout_option: Decorator = click.option(
    "--holdout", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of photos to evaluate on."
)


def rounds_option(default: int, help: str = "Number of runs of each case.") -> Decorator:
    return click.option("--rounds", type=click.IntRange(min=1), default=default, help=help)


def workers_option(help: str, minimum: int = 0) -> Decorator:
    return click.option(
        "--workers", type=click.IntRange(min=minimum), default=available_cpus, show_default="number of CPUs", help=help
    )


def scratch_option(help: str) -> Decorator:
    return click.option(
        "--scratch",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help=f"{help}  [default: the system's temporary folder]",
    )


def output_option(name: str | None) -> Decorator:
    """Return `-o`, the file for the result; by default `name` in results/ (None: the command chooses the name)."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        default=RESULTS / name if name else None,
        show_default="in results/",
        help="JSON file for the result.",
    )
