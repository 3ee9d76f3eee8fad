"""Files of settings (`--config`, `config.yaml`, presets): YAML whose values are converted as options are."""

import math
from typing import Any

import click
import yaml

from srshards.errors import UsageError
from srshards.format import Address
from srshards.plain_yaml import Scalar, load_as_written, yaml_reason
from srshards.storage.store import read_bytes
from srshards.terminal.text import did_you_mean
from trainer.commands.types import AUGMENT, GAN, LOSS, METRIC_NAMES, MILESTONES, NAMED_SET
from trainer.training.config import TrainConfig, option_names

_LIST = "a list of values"
# What an option may be in a file that may also be a mapping there, and what joins a name and its value.
_MAPPINGS: dict[click.ParamType[Any], tuple[str, str]] = {
    NAMED_SET: (f"{_LIST}, or a mapping of names to folders", "="),
    LOSS: (f"{_LIST}, or a mapping of losses to weights such as {{l1: 1, fft: 0.05}}", ":"),
    GAN: ("a value such as vanilla:0.1@5000-, or a mapping such as {vanilla: 0.1@5000-}", ":"),
    AUGMENT: (f"{_LIST}, or a mapping of augmentations to shares such as {{mixup: 0.2, cutblur: 0.3}}", ":"),
}


def read_settings(context: click.Context, file: Address) -> dict[str, Any]:
    """Return the settings in a file by their names in `TrainConfig`, each converted as its option would convert it.

    UsageError for a file that cannot be read, unknown settings, and values that the option would refuse.
    """
    try:
        return parse_settings(context, read_bytes(file), file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


def parse_settings(context: click.Context, text: bytes, file: Address) -> dict[str, Any]:
    """Return the settings in the content of a file. UsageError, which names the file, for anything else."""
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
            return option.process_value(context, _texts(value, option))
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
        message = error.message.removesuffix(".")
        if isinstance(value, dict) and message.startswith("unknown"):  # a likely mistake is {name: l1, weight: 1}
            message += f" (the setting is {_MAPPINGS[option.type][0]})"
        raise UsageError(f"{file}: {name.replace('_', '-')}: {message}") from error


def _texts(value: Any, option: click.Parameter) -> list[str]:
    """Return the texts of an option that takes several: of a list, of one value, or of a mapping of names to values."""
    expected, separator = _MAPPINGS.get(option.type, (_LIST, ""))
    if isinstance(value, dict) and option.type in _MAPPINGS:
        texts = [(f"{name.text}{separator}", one) for name, one in value.items()]
    elif isinstance(value, list):
        texts = [("", one) for one in value]
    elif isinstance(value, Scalar):
        texts = [] if value.value is None else [("", value)]
    else:
        raise click.BadParameter(f"expected {expected}, found {_kind(value)}")
    for _, one in texts:
        if not isinstance(one, Scalar) or one.value is None:
            raise click.BadParameter(f"expected {expected}, but one of them is {_kind(one)}")
    return [f"{name}{one.text}" for name, one in texts]


def _kind(value: Any) -> str:
    """Describe a value that is not a text."""
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "empty"


def _option_text(value: Scalar, option: click.Parameter) -> str:
    """Return the text as on the command line; YAML's `.inf` is Python's `inf`."""
    is_infinite = isinstance(option.type, click.types.FloatParamType) and value.value in (math.inf, -math.inf)
    return str(value.value) if is_infinite else value.text
