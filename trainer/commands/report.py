"""`python -m trainer report`: an HTML page about training runs."""

from pathlib import Path

import click

from srshards.format import Address
from srshards.imaging.provenance import PAGE_WRITERS
from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, FileToWrite
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural, say

_OUTPUT = FileToWrite(PAGE_WRITERS, "report.html")


@click.command("report", cls=Command, short_help="Compare runs on one HTML page: curves, settings, previews.")
@click.argument("runs", type=ADDRESS, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=_OUTPUT,
    default=Path("report.html"),
    show_default=True,
    help="HTML file to write. An existing file is replaced only if a report command wrote it.",
)
def report_command(runs: tuple[Address, ...], output: Path) -> None:
    """Compare RUNS, e.g. runs/lite-4x, on one self-contained HTML page that opens offline.

    \b
    Example:
      python -m trainer report runs/lite-4x runs/lite-4x-2 -o report.html
    """
    with loading():
        from trainer.report.page import write_report
    report = write_report(runs, output)
    named = ", ".join(report.labels[:8]) + (f" and {len(report.labels) - 8:,} more" if len(report.labels) > 8 else "")
    say(f"{report.path}: {format_bytes(report.num_bytes)}, {plural(len(report.labels), 'run')}: {named}")
