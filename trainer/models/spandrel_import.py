"""Import spandrel, also where torchvision is missing or does not fit PyTorch.

spandrel requires torchvision for two architectures only, LaMa and RestoreFormer: an inpainting and a face network,
neither of which the trainer uses. But it imports all architectures at once, and a torchvision that is missing or built
for another PyTorch would make all of them unusable.
"""

import enum
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from srshards.errors import UsageError
from srshards.extras import install_command

_TORCHVISION = "torchvision"


def load_spandrel() -> Any:
    """Return the package spandrel. UsageError if it, or a package that it needs, is not installed.

    A torchvision that works is imported as usual. Otherwise, only during the import of spandrel, stand-ins take the
    place of the names that it imports from there; afterwards, `import torchvision` fails or succeeds as before.
    """
    imported = sys.modules.get("spandrel")
    if imported is not None:
        return imported
    try:
        with _stand_ins():
            return importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        missing = error.name or "spandrel"
        raise UsageError(f"networks other than sr-shards' own need {missing}; {install_command(missing)}") from error


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put stand-ins for torchvision into `sys.modules` for the duration of the block, unless torchvision works."""
    before = _torchvision_modules()
    try:
        importlib.import_module("torchvision.transforms.functional")
        works = True
    except Exception:  # a build for another PyTorch raises RuntimeError, AttributeError or OSError
        works = False
    if works:
        yield
        return
    _replace_torchvision(_fakes())
    try:
        yield
    finally:
        _replace_torchvision(before)


def _torchvision_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _TORCHVISION}


def _replace_torchvision(modules: dict[str, ModuleType]) -> None:
    for name in _torchvision_modules():
        del sys.modules[name]
    sys.modules.update(modules)


def _fakes() -> dict[str, ModuleType]:
    """Return modules with exactly the names that spandrel imports."""
    names = (_TORCHVISION, "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: _module(name) for name in names}
    functional: Any = modules[names[-1]]
    functional.rotate = functional.normalize = _refuse
    functional.InterpolationMode = _InterpolationMode
    return modules


def _module(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    return module


class _InterpolationMode(enum.Enum):
    BILINEAR = "bilinear"


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise UsageError("LaMa and RestoreFormer need torchvision; install the build that matches PyTorch")
