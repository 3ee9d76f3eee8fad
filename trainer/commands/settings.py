"""Resolve settings: the command line overrides `--config`, which overrides a resumed run or a preset, then defaults."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml
from click.core import ParameterSource

from srshards.errors import UsageError
from srshards.format import Address
from srshards.plain_yaml import Scalar, load_as_written, yaml_reason
from srshards.storage.store import file_size, read_bytes
from srshards.terminal.text import did_you_mean
from trainer.commands.types import LOSS, METRIC_NAMES, MILESTONES, NAMED_SET
from trainer.messages import option_name
from trainer.presets import preset_text
from trainer.runs.folder import RunFolder
from trainer.runs.lookup import existing_run, forget_job, run_of_job
from trainer.training.config import FREE_TO_CHANGE, TrainConfig, option_names

_MAPPINGS: dict[click.ParamType[Any], tuple[str, str]] = {
    NAMED_SET: (", or a mapping of names to folders", "="),
    LOSS: (", or a mapping of losses to weights", ":"),
}


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
    from_file = _read(context, file) if file else {}
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
        original = {"ranks": 1, **_read(context, run.home / run.config.name)}
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
            given = f"the default of {option}" if value is None else _shown(value)
            raise UsageError(
                f"{run} was started {_started(option, before)}, not {given}; omit {option} to resume exactly, or start "
                f"a new run, e.g. with --init {run / 'model.pth'}"
            )


def _started(option: str, value: Any) -> str:
    if value is None or value is False or value == ():
        return f"without {option}"
    return f"with {option}" if value is True else f"with {option} {_shown(value)}"


def _shown(value: Any) -> str:
    """Return a setting as it is passed."""
    if isinstance(value, bool):
        return "with it" if value else "without it"
    return ",".join(map(str, value)) if type(value) is tuple else str(value)


def _of_preset(context: click.Context, name: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a preset that fit those chosen."""
    settings = _parsed(context, preset_text(name).encode(), Path(f"{name}.yaml"))
    if "schedule" in chosen and chosen["schedule"] != settings.get("schedule"):
        settings.pop("milestones", None)  # which only the preset's schedule has
    return settings


def _read(context: click.Context, file: Address) -> dict[str, Any]:
    """Return the settings in a YAML file, each converted as its command-line option would convert it."""
    try:
        return _parsed(context, read_bytes(file), file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


def _parsed(context: click.Context, text: bytes, file: Address) -> dict[str, Any]:
    try:
        content = load_as_written(text.decode("utf-8"))
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{file} is not valid YAML: {_reason(error)}") from error
    if content is None or (isinstance(content, Scalar) and content.value is None):
        return {}
    if not isinstance(content, dict):
        found = type(content.value if isinstance(content, Scalar) else content).__name__
        raise UsageError(f"{file}: expected lines such as `batch-size: 16`, found YAML of type {found}")
    options = {param.name: param for param in context.command.params}
    known = option_names()
    settings: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for key, value in (_as_current(*setting) for setting in content.items()):
        name = key.text.replace("-", "_")
        if name.replace("_", "-") not in known:
            hint = did_you_mean(key.text, known) or f"expected one of {', '.join(known)}"
            raise UsageError(f"{file}: unknown setting {key.text!r}; {hint}")
        if name in settings:
            raise UsageError(f"{file}: {spelt[name]!r} and {key.text!r} are the same setting; remove one of them")
        settings[name], spelt[name] = _converted(context, options[name], value, file), key.text
    return settings


def _reason(error: Exception) -> str:
    return yaml_reason(error) if isinstance(error, yaml.YAMLError) else str(error)


def _as_current(key: Scalar, value: Any) -> tuple[Scalar, Any]:
    """Translate the setting `compile` of earlier versions; return others unchanged."""
    if key.text == "compile" and isinstance(value, Scalar) and isinstance(value.value, bool):
        mode = "compiled" if value.value else TrainConfig.step
        return Scalar("step", "step"), Scalar(mode, mode)
    return key, value


def _converted(context: click.Context, option: click.Parameter, value: Any, file: Address) -> Any:
    """Convert a YAML value as the option would convert its text; `null` is valid for options without a default."""
    name = str(option.name)
    is_flag = isinstance(option.type, click.types.BoolParamType)
    try:
        if option.multiple:
            return option.type_cast_value(context, _texts(value, option))
        if not isinstance(value, Scalar) and option.type in (METRIC_NAMES, MILESTONES):
            texts = _texts(value, option)
            return option.type_cast_value(context, ",".join(texts)) if texts else None
        if not isinstance(value, Scalar):
            raise click.BadParameter(f"expected one value, found {_kind(value)}")
        if value.value is None and getattr(TrainConfig, name, None) is None:
            return None
        if value.value is None or (is_flag and not isinstance(value.value, bool)):
            raise click.BadParameter(f"expected {'true or false' if is_flag else 'a value'}, found {value.text!r}")
        return value.value if is_flag else option.type_cast_value(context, _option_text(value, option))
    except click.BadParameter as error:
        raise UsageError(f"{file}: {name.replace('_', '-')}: {error.message.removesuffix('.')}") from error


def _texts(value: Any, option: click.Parameter) -> list[str]:
    """Return the texts of an option that takes several: of a list, of one value, or of a mapping of names to values."""
    mapping, separator = _MAPPINGS.get(option.type, ("", ""))
    expected = f"expected a list of values{mapping}"
    if isinstance(value, dict) and mapping:
        texts = [(f"{name.text}{separator}", one) for name, one in value.items()]
    elif isinstance(value, list):
        texts = [("", one) for one in value]
    elif isinstance(value, Scalar):
        texts = [] if value.value is None else [("", value)]
    else:
        raise click.BadParameter(f"{expected}, found {_kind(value)}")
    for _, one in texts:
        if not isinstance(one, Scalar) or one.value is None:
            raise click.BadParameter(f"{expected}, but one of them is {_kind(one)}")
    return [f"{name}{one.text}" for name, one in texts]


def _kind(value: Any) -> str:
    """Describe a value that is not a text."""
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "empty"


def _option_text(value: Scalar, option: click.Parameter) -> str:
    """Return the text as on the command line; YAML's `.inf` is Python's `inf`."""
    is_infinite = isinstance(option.type, click.types.FloatParamType) and value.value in (math.inf, -math.inf)
    return str(value.value) if is_infinite else value.text
