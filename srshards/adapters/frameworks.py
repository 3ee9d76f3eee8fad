"""Import a framework, which may be missing. Imports neither PyTorch nor a framework itself."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from srshards.errors import UsageError

MIN_PYTORCH = (2, 6)  # as in pyproject.toml, which is of no effect here: PyTorch is that of the framework


@contextmanager
def framework(name: str, package: str, install: str) -> Iterator[None]:
    """Explain an import that fails inside: ImportError says that `package` is missing, or what it lacks itself.

    `install` says how to install the framework `name`. ImportError as well for a version of PyTorch that is too old.
    """
    if message := _old_pytorch():
        raise _import_error(message, "torch")
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            message = f"{name} is not installed; {install}"
        else:
            message = f"{name} cannot be imported: {error}; make its own training command work first"
        raise _import_error(message, error.name) from error


def _import_error(message: str, module: str | None) -> ImportError:
    """Return the error. Under `python -m`, exit with the message instead.

    `python -m` imports a package before its __main__, and would report an ImportError in other words.
    """
    if sys.argv[0] == "-m":
        sys.exit(f"Error: {message}")
    return ImportError(message, name=module)


def _old_pytorch() -> str | None:
    """Return what is wrong with the version of PyTorch; None if it is new enough, unknown or not installed."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) >= MIN_PYTORCH:
        return None
    return f"PyTorch {version} is too old for sr-shards; install {'.'.join(map(str, MIN_PYTORCH))} or newer here"


def script_beside(package: ModuleType) -> ModuleType:
    """Import the `train.py` of a framework that is used as a clone: the file beside its package.

    UsageError if there is none.
    """
    assert package.__file__
    path = Path(package.__file__).resolve().parent.parent / "train.py"
    spec = spec_from_file_location("train", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"{path} is missing; run this command in a clone of {package.__name__}, which contains it")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
