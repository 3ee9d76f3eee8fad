"""Import a framework, which may be missing. Imports neither PyTorch nor a framework itself."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from srshards.errors import UsageError


@contextmanager
def framework(name: str, package: str, install: str) -> Iterator[None]:
    """Explain an import that fails inside: ImportError says that `package` is missing, or what it lacks itself.

    `install` says how to install the framework `name`.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            message = f"{name} is not installed; {install}"
        else:
            message = f"{name} cannot be imported: {error}; make its own training command work first"
        # `python -m` imports a package before its __main__, and would report an ImportError in other words.
        if sys.argv[0] == "-m":
            sys.exit(f"Error: {message}")
        raise ImportError(message, name=error.name) from error


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
