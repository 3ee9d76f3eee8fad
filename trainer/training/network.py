"""The network that a run trains: the one it was started with, that of `--init`, a named one, or that of its device."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from srshards.errors import UsageError
from srshards.process.shortages import is_out_of_memory
from srshards.shards.folder import Shards
from trainer.catalogue import default_model
from trainer.models import NetworkSpec, network_spec, spec_from_json
from trainer.models.weights import load_network
from trainer.runs.folder import RunFolder
from trainer.training.config import DEFAULT_PATCH_SIZE, TrainConfig
from trainer.training.device import choose_device


def stored_spec(run: RunFolder, facts: Mapping[str, Any], model: str | None) -> NetworkSpec | None:
    """Return the network that the run was started with, from its plan.json; None for runs of earlier versions.

    A run can thus be resumed without the file of `--init`, and after a network of that name has changed. UsageError if
    the file is damaged, or the settings of the run name another `model`.
    """
    if facts.get("network") is None:
        return None
    try:
        spec, started_with = spec_from_json(facts["network"]), facts["model"]
        spec.shapes()  # constructors check little, and raise almost anything
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, UsageError):  # a network or package that this installation lacks
            raise UsageError(f"{run.home / run.plan.name}: {error}") from error
        raise run.damaged_plan() from error
    if model not in (None, started_with):
        raise UsageError(
            f"{run.home / run.config.name} has the model {model}, but the run was started with {started_with}; restore "
            f"`model: {started_with}`"
        )
    return spec


def choose_spec(config: TrainConfig, folder: Shards) -> NetworkSpec:
    """Return the network of a new run: that of `--init`, or else `--model` at the scale of the shards.

    Without either, the device decides (`default_model`). UsageError if there is no such network or device, or if the
    network does not fit the shards, `--model` or the patches, or cannot be trained.
    """
    spec = _spec_of_init(config.init, config, folder) if config.init else _named_spec(config, folder)
    _check_patch_size(spec, config, folder)
    return spec


def initial_weights(path: Path, spec: NetworkSpec) -> dict[str, Tensor]:
    """Return the parameters in a weights file, by name. UsageError if they belong to another network."""
    network = load_network(path)
    if network.spec.as_json() != spec.as_json():
        raise _mismatch(path, network.spec, spec)
    return network.state_dict()


def _named_spec(config: TrainConfig, folder: Shards) -> NetworkSpec:
    model = config.model or default_model(choose_device(config.device).type)
    return network_spec(model, _scale(config, folder))


def _spec_of_init(init: Path, config: TrainConfig, folder: Shards) -> NetworkSpec:
    spec = _trainable(load_network(init).spec, init)
    if config.model is not None and (named := _named_spec(config, folder)) != spec:
        raise _mismatch(init, spec, named)
    scale = _scale(config, folder)
    if spec.scale == scale:
        return spec
    if spec.scale == 1:
        raise UsageError(f"{init} has a network that takes upsampled images; pass --input up")
    if scale == 1:
        raise UsageError(f"{init} has a network that upscales {spec.scale}x; omit --input up, or pass other weights")
    raise UsageError(
        f"{init} has a network that upscales {spec.scale}x, but the shards in {folder.path} are {folder.scale}x; pass "
        f"--shards of {spec.scale}x, or other weights"
    )


def _trainable(spec: NetworkSpec, init: Path) -> NetworkSpec:
    """Return the spec as a resumed run will read it. UsageError for an architecture without training support."""
    try:
        return spec_from_json(spec.as_json())
    except UsageError as error:
        raise UsageError(f"--init {init}: {error}") from error


def _mismatch(path: Path, found: NetworkSpec, expected: NetworkSpec) -> UsageError:
    return UsageError(
        f"weights {path} are for {found.name} at {found.scale}x, but this run trains {expected.name} at "
        f"{expected.scale}x; pass other weights, or a --model, --input and --shards that match these"
    )


def _scale(config: TrainConfig, folder: Shards) -> int:
    """Return the scale of the network: that of the shards, or 1 for one that takes upsampled images."""
    return folder.scale if config.input == "lr" else 1


def patch_step(spec: NetworkSpec, config: TrainConfig, folder: Shards) -> int:
    """Return the number of HR px of which the edge of a patch must be a multiple, so that no input patch is padded."""
    return math.lcm(folder.scale, spec.multiple_px * (folder.scale if config.input == "lr" else 1))


def default_patch_size(spec: NetworkSpec, config: TrainConfig, folder: Shards) -> int:
    """Return the smallest suitable patch size from DEFAULT_PATCH_SIZE on, in HR px, or the largest if none fits."""
    step = patch_step(spec, config, folder)
    upper = -(-DEFAULT_PATCH_SIZE // step) * step
    return upper if upper <= folder.hr_size or upper == DEFAULT_PATCH_SIZE else max(folder.hr_size // step, 1) * step


def _check_patch_size(spec: NetworkSpec, config: TrainConfig, folder: Shards) -> None:
    """Raise UsageError if the network would have to pad the patches of its input."""
    given, step = config.patch_size, patch_step(spec, config, folder)
    if given is None or spec.multiple_px == 1 or given % step == 0:
        return
    suggested = [size for size in (given // step * step, (given // step + 1) * step) if 0 < size <= folder.hr_size]
    advice = f"pass --patch-size {' or '.join(map(str, suggested))}" if suggested else "pass shards of a larger --size"
    raise UsageError(
        f"--patch-size {given}: {spec.name} needs input patches that are a multiple of {spec.multiple_px} px, i.e. HR "
        f"patches that are a multiple of {step} px; {advice}"
    )
