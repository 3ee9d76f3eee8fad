"""Resolve settings: the command line overrides `--config`, which overrides a resumed run or a preset, then defaults."""

from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from srshards.errors import UsageError
from srshards.format import Address
from srshards.storage.store import file_size
from trainer.commands.config_file import parse_settings, read_settings
from trainer.messages import option_name
from trainer.presets import preset_text
from trainer.runs.folder import RunFolder
from trainer.runs.lookup import existing_run, forget_job, run_of_job
from trainer.training.config import FREE_TO_CHANGE, OF_GAN, TrainConfig


class Resolved(NamedTuple):
    """The settings of a run, and the folder of the run to resume (None for a new run).

    `requested` are the given settings that the resumed run had left to defaults. Whether they equal these is known only
    from its plan.
    """

    config: TrainConfig
    run: RunFolder | None
    requested: dict[str, Any]


def resolve(
    context: click.Context, values: dict[str, Any], file: Path | None, resume: bool, job: str | None, restarted: bool
) -> Resolved:
    """Merge command line, `--config` file, resumed run or preset, and defaults.

    A run is resumed with `resume`, or if the torchrun `job` that started it was `restarted`. UsageError for an unknown
    key, a value of the wrong type, two options that exclude each other, or a change to a resumed run.
    """
    typed = {
        name: value
        for name, value in values.items()
        if context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    }
    from_file = read_settings(context, file) if file else {}
    if "epochs" in typed:  # the command line takes precedence over the file's steps
        from_file.pop("steps", None)
    chosen = {**from_file, **typed}
    preset = chosen.get("preset")
    run, requested = None, dict[str, Any]()
    out, name = chosen.get("out", values["out"]), chosen.get("run")
    if resume:
        run = existing_run(out, name)
    elif job is not None and restarted:
        run = run_of_job(out, name, job)
    elif job is not None:
        forget_job(out, name, job)
    if run is not None and file_size(run.home / run.config.name) is not None:  # else the job died before writing it
        original = {"ranks": 1, **read_settings(context, run.home / run.config.name)}
        if original.get("gan") is None:  # earlier versions wrote the defaults of a discriminator
            original = _without_discriminator(original)
        changed = {name: value for name, value in chosen.items() if value != original.get(name)}
        requested = {name: value for name, value in changed.items() if name not in FREE_TO_CHANGE}
        fixed = {name: value for name, value in requested.items() if original.get(name) is not None}
        refuse_changes(fixed, original, run.home)
        free = {name: value for name, value in changed.items() if name in FREE_TO_CHANGE}
        # The run may have been moved or renamed since it was started.
        chosen = {**original, **free, "out": out, "run": run.home.name}
        values = {}  # options that the version of the run did not have keep their defaults, even if they are passed
    elif preset is not None:
        chosen = {**_of_preset(context, preset, chosen), **chosen}
    settings = {**values, **chosen}
    if settings.get("shards") is None:
        raise UsageError(
            "pass the shards to train on, e.g. --shards shards/scale_4x (to generate them, run `python -m shardgen "
            "generate`); for all options and commands, pass --help"
        )
    try:
        config = TrainConfig(**settings)
    except UsageError as error:
        source = f"in {file}" if file else f"of --preset {preset}" if preset else None
        raise UsageError(f"{error} (with the settings {source})" if source else str(error)) from error
    if {"epochs", "steps"} <= typed.keys():
        raise UsageError("--epochs and --steps both set the length of the run; pass one of them")
    return Resolved(config, run, requested)


def refuse_changes(requested: dict[str, Any], original: dict[str, Any], run: Address) -> None:
    """Raise UsageError if a requested setting differs from the one that the run was started with."""
    for name, value in requested.items():
        before = original.get(name)
        if value != before:
            option = option_name(name)
            started = f"without {option}" if _is_omitted(before) else f"with {_passed(option, before)}"
            raise UsageError(
                f"{run} was started {started}, not {_requested(option, value)}; omit {option} to resume exactly, or "
                f"start a new run, e.g. with --init {run / 'model.pth'}"
            )


def _is_omitted(value: Any) -> bool:
    """Return whether a setting is one that omits its option."""
    return value is None or value is False or value == ()


def _requested(option: str, value: Any) -> str:
    if value is None:
        return f"the default of {option}"
    return "without it" if _is_omitted(value) else "with it" if value is True else _passed(option, value)


def _passed(option: str, value: Any) -> str:
    """Return a setting as it is passed: `--milestones 0.5,0.8`, but `--loss l1 --loss fft:0.05`."""
    if value is True:
        return option
    if type(value) is not tuple:
        return f"{option} {value}"
    if all(isinstance(one, str | int | float) for one in value):
        return f"{option} {','.join(map(str, value))}"
    return " ".join(f"{option} {one}" for one in value)


def _of_preset(context: click.Context, name: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a preset that fit those chosen."""
    settings = parse_settings(context, preset_text(name).encode(), Path(f"{name}.yaml"))
    if "schedule" in chosen and chosen["schedule"] != settings.get("schedule"):
        settings.pop("milestones", None)  # which only the preset's schedule has
    return settings if chosen.get("gan", settings.get("gan")) else _without_discriminator(settings)


def _without_discriminator(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in OF_GAN}
