"""`shardgen report`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from shardgen.commands.types import option
from shardgen.generate.progress import ProgressDisplay
from shardgen.planning.sources import printable
from shardgen.shard.job import Progress
from srshards.errors import ReportedError
from srshards.format import Address
from srshards.imaging.provenance import PAGE_WRITERS
from srshards.storage.output_lock import busy_message
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, FileToWrite
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import say


@click.command("report", cls=Command, short_help="Write a page of what shards hold, and what to leave out.")
@click.argument("shards", type=ADDRESS, default=Path("shards"))
@option(
    "-o",
    "--output",
    type=FileToWrite(PAGE_WRITERS, "report.html"),
    default=Path("report.html"),
    help="The page to write; it replaces only such a page.",
)
@option("--samples", type=click.IntRange(min=1), default=5000, help="Samples to measure of each scale, spread evenly.")
def report_command(shards: Address, output: Path, samples: int) -> None:
    """Write a page to look at before training: what the shards hold, and what you may want to leave out of them.

    \b
    Example:
      shardgen report shards -o report.html
    """
    from shardgen.report.page import write_report  # plots take a second to import, and other commands have none

    written = write_report(shards, output, samples, _display)
    took = max(written.measuring_s, 1e-9)
    say(
        f"{output}: {written.num_measured:,} of {written.num_samples:,} samples measured in {took:.1f} s "
        f"({written.num_measured / took:.0f} samples/s), {format_bytes(written.num_bytes)}"
    )
    if written.damages:
        what, reason = written.damages[0]
        busy = busy_message(shards)
        fix = f"`shardgen verify {shards} --fix` removes what is broken."
        advice = fix if busy is None else f"But {busy}."
        raise ReportedError(
            f"{len(written.damages):,} samples or shards could not be read, e.g. {what}: {printable(reason)[:300]}. "
            f"The page names them. {advice}"
        )


@contextmanager
def _display(total: int) -> Iterator[Callable[[Progress], None]]:
    with ProgressDisplay(total, "samples") as progress:
        yield progress.report
