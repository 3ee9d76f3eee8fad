"""Execution of `generate` and `pack`: their common options, the confirmation, and the exit code."""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import click

from shardgen.commands.run_text import outcome_text, photo_lines, preparation_text, replacement_lines
from shardgen.commands.types import FailureLimit, failure_limit, option
from shardgen.engines.base import Engine
from shardgen.engines.local import PoolEngine, SerialEngine
from shardgen.generate.inputs import Inputs
from shardgen.generate.run import Outcome, Preparation, generate, prepare
from shardgen.planning.config import DEFAULT_VAL_FRACTION, ICC
from shardgen.planning.sources import shown
from srshards.errors import ReportedError, UsageError
from srshards.extras import install_command
from srshards.format import CODECS
from srshards.process.resources import available_cpus
from srshards.terminal.params import BYTE_SIZE, PATH
from srshards.terminal.streams import nonessential_output
from srshards.terminal.text import Choice, fitted, plural, say

_CPUS = "[default: the CPUs that this process may use, or all of the cluster]"
_RAY = "[default: RAY_ADDRESS, else the cluster last started on this machine, else a new one for this run]"


@dataclass(frozen=True)
class RunOptions:
    """The options that determine how a run is executed, but not the bytes of its shards."""

    engine: str
    ray_address: str | None
    workers: int | None
    max_failures: str | None
    auto: bool
    force: bool
    dry_run: bool


def run_options(noun: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options of both commands, as the last ones of their help.

    The command gets a `RunOptions` as `run`; `sample`, `codec`, `icc`, `shard_bytes`, `val_fraction` and `seed`, which
    are fields of `Config`; and `exclude`. `noun` is "photo" or "pair".
    """
    of_recipes = ", and for recipes" if noun == "photo" else ""
    options = (
        option(
            "--sample", type=float, default=1.0, help=f"Fraction of the {noun}s to use, e.g. 0.01 for a quick trial."
        ),
        option(
            "--codec",
            type=Choice(CODECS),
            default="npy",
            help="Image format: npy trains fastest; png, webp and tlc, all lossless, take about a half, a third and "
            "0.3 of the space. tlc is decoded fastest of these, but by this project only.",
        ),
        option(
            "--icc",
            type=Choice(ICC),
            default="convert",
            help="Images with an ICC colour profile: convert them to sRGB, or ignore the profile.",
        ),
        option(
            "--shard-bytes",
            type=BYTE_SIZE,
            default="256MB",
            help="Approximate maximum size of a shard; most have half or more.",
        ),
        click.option(
            "--val-fraction",
            type=float,
            help=f"Fraction of the {noun}s for validation, unless --val is passed.  [default: {DEFAULT_VAL_FRACTION}]",
        ),
        option("--seed", type=int, default=0, help=f"Seed for the order and split of the {noun}s{of_recipes}."),
        option(
            "--engine", type=Choice(("local", "ray")), default="local", help="Local worker processes, or a Ray cluster."
        ),
        click.option("--ray-address", help=f"Ray cluster: HOST:PORT, auto or local, with --engine ray.  {_RAY}"),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            help="Worker processes; 0 builds shards in this process. With --engine ray: shards at a time, at most.  "
            f"{_CPUS}",
        ),
        click.option(
            "--max-failures",
            type=FailureLimit(),
            help=f"Exit with code 1 if more {noun}s than this fail, e.g. 50 or 2%.  [default: 1%, at least 10]",
        ),
        click.option(
            "--exclude", type=PATH, help=f"Leave out the {noun}s listed in this file, as exported by `report`."
        ),
        click.option("--auto", is_flag=True, help="Run without asking for confirmation."),
        click.option("--force", is_flag=True, help="Replace finished shards that were generated with other settings."),
        click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def collecting(**values: Any) -> None:
            run = RunOptions(**{field.name: values.pop(field.name) for field in fields(RunOptions)})
            command(run=run, **values)

        decorated: Callable[..., None] = collecting
        for add in reversed(options):
            decorated = add(decorated)
        return decorated

    return decorate


def execute(list_inputs: Callable[[], Inputs], run: RunOptions) -> None:
    """List the inputs and build their shards, or with `--dry-run` print the plan. Prints the result."""
    engine_context = _engine_context(run.engine, run.ray_address, run.workers)
    inputs = list_inputs()
    if run.dry_run:
        click.echo(fitted(preparation_text(prepare(inputs)), sys.stdout))
        return
    with engine_context as engine:
        outcome = generate(inputs, engine, functools.partial(_confirm, auto=run.auto, force=run.force))
    say(outcome_text(outcome))
    _warn_of_profiles(outcome.profiles["unusable"], inputs.config.noun)
    _exit_by_failures(outcome, run.max_failures)


class NotConfirmedError(click.Abort):
    """The user did not confirm the run. The message says which options run it without a prompt."""


def _engine_context(engine: str, ray_address: str | None, workers: int | None) -> AbstractContextManager[Engine]:
    """Return the engine as a context manager. UsageError for options that exclude each other."""
    if engine == "ray":
        if workers == 0:
            raise UsageError("--workers 0: expected 1 or more with --engine ray")
        try:  # Ray is optional and takes a second to import
            from shardgen.engines.ray import ray_engine
        except ImportError as error:
            raise UsageError(f"--engine ray requires Ray ({error}); {install_command('ray')}") from error
        return ray_engine(ray_address, workers)
    if ray_address is not None:
        raise UsageError(f"--ray-address {ray_address} requires --engine ray")
    num_workers = available_cpus() if workers is None else workers
    return nullcontext(PoolEngine(num_workers) if num_workers else SerialEngine())


def _confirm(preparation: Preparation, auto: bool, force: bool) -> None:
    replaced = [] if force else replacement_lines(preparation)
    if replaced and auto:
        make = " (make: FORCE=1)" if preparation.config.pairs is None else ""  # no make target packs pairs
        raise UsageError(
            f"{'; '.join(replaced)}. Pass --force{make} to replace them, or another --output to keep them."
        )
    if not (preparation.tasks or replaced):
        if preparation.inputs.excluded:
            say("\n".join(photo_lines(preparation)))
        return
    say(preparation_text(preparation))
    with nonessential_output():
        if auto:
            return
        if replaced and not _agrees("Replace shards generated with other settings?", default=False):
            raise NotConfirmedError("Pass --auto --force to replace them without a prompt, or another --output.")
        if not replaced and not _agrees("Proceed?", default=True):
            raise NotConfirmedError("Pass --auto to run without a prompt.")


def _agrees(question: str, default: bool) -> bool:
    try:
        return click.confirm(question, default=default)
    except click.Abort:  # Ctrl-C, or the end of the input
        return False


def _warn_of_profiles(unusable: list[dict[str, str]], noun: str) -> None:
    if unusable:
        example = f"{shown(unusable[0]['path'])}: {unusable[0]['reason']}"
        some = f"The colour profile of {plural(len(unusable), noun)} cannot be applied, so sRGB was assumed"
        click.echo(f"{some}, e.g. {example}. The manifest lists all of them.", err=True)


def _exit_by_failures(outcome: Outcome, max_failures: str | None) -> None:
    failures = outcome.failures
    num_photos, noun = outcome.num_photos, outcome.inputs.config.noun
    limit = failure_limit(max_failures, num_photos)
    if failures:
        of_val = " (--val)" if failures[0].get("split") == "val" else ""
        example = f"{shown(failures[0]['path'])}{of_val}: {failures[0]['reason']}"
        some = f"{len(failures):,} of {num_photos:,} {noun}s failed (--max-failures: {limit:,})"
        click.echo(f"{some}, e.g. {example}. The manifest lists all of them.", err=True)
    if not outcome.num_samples:
        raise ReportedError(f"no {noun} produced a sample; the manifest lists the reasons")
    if len(failures) > limit:
        raise ReportedError(
            f"{plural(len(failures), noun)} failed, more than the {limit:,} that --max-failures allows. The shards "
            f"are complete and usable without them. Fix or remove these {noun}s, or raise --max-failures."
        )
