"""The `report` command."""

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


@click.command("report", cls=Command, short_help="Write an HTML page about the shards, to choose photos to exclude.")
@click.argument("shards", type=ADDRESS, default=Path("shards"))
@option(
    "-o",
    "--output",
    type=FileToWrite(PAGE_WRITERS, "report.html"),
    default=Path("report.html"),
    help="HTML file to write. An existing file is replaced only if a report command wrote it.",
)
@option("--samples", type=click.IntRange(min=1), default=5000, help="Samples to measure per scale, spread evenly.")
def report_command(shards: Address, output: Path, samples: int) -> None:
    """Write an HTML page to read before training: statistics, images, and photos you may want to exclude.

    SHARDS is shards by default.

    \b
    Example:
      python -m shardgen report shards -o report.html
    """
    from shardgen.report.page import write_report  # here, because importing the plotting library takes a second

    written = write_report(shards, output, samples, _display)
    took = max(written.measuring_s, 1e-9)
    say(
        f"{output}: {written.num_measured:,} of {written.num_samples:,} samples measured in {took:.1f} s "
        f"({written.num_measured / took:.0f} samples/s), {format_bytes(written.num_bytes)}"
    )
    if written.damages:
        what, reason = written.damages[0]
        busy = busy_message(shards)
        fix = f"To remove broken shards, run `python -m shardgen verify {shards} --fix`."
        advice = fix if busy is None else f"The cause may be that {busy}."
        raise ReportedError(
            f"Unreadable samples or shards: {len(written.damages):,}, e.g. {what}: {printable(reason)[:300]}. "
            f"The page lists them. {advice}"
        )


@contextmanager
def _display(total: int) -> Iterator[Callable[[Progress], None]]:
    with ProgressDisplay(total, "samples") as progress:
        yield progress.report
