"""The weights files of losses."""

from collections.abc import Iterable
from pathlib import Path

from trainer.evaluation.perceptual import require_pyiqa
from trainer.loss_table import LOSSES
from trainer.metrics_table import PERCEPTUAL
from trainer.models.weights import SUFFIXES
from trainer.models.weights_files import find_files
from trainer.weights_table import VGG19, WEIGHTS_FILES


def find_loss_weights(names: Iterable[str], weights: Path | None) -> dict[str, Path]:
    """Return the files that the losses `names` need, by published name: in `weights` if they are there, else in caches.

    `weights` is a folder or one of the files, as for `find_files`, or a .pth, .pt or .safetensors file of another name
    with weights of VGG19. UsageError, before anything is loaded, if pyiqa is needed and not installed, or if files are
    missing or damaged: a line for each, with the command that downloads it.
    """
    names = list(dict.fromkeys(names))
    if by_pyiqa := [name for name in names if name in PERCEPTUAL]:
        require_pyiqa(by_pyiqa)
    needed = {name: [WEIGHTS_FILES[file] for file in LOSSES[name].weights] for name in names}
    found = {}
    if weights and weights.is_file() and weights.suffix in SUFFIXES and weights.name not in WEIGHTS_FILES:
        found[VGG19.name] = weights
        needed = {name: [file for file in files if file is not VGG19] for name, files in needed.items()}
        weights = None
    return find_files(needed, weights, "--perceptual-weights") | found
