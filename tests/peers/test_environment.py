"""The frameworks can be imported."""

from importlib import import_module, metadata

import pytest


@pytest.mark.parametrize(
    ("package", "version", "module"),
    [("basicsr", "1.4.2", "basicsr.train"), ("realesrgan", "0.3.0", "realesrgan.data.realesrgan_dataset")],
)
def test_framework_imports(package: str, version: str, module: str) -> None:
    assert metadata.version(package) == version
    import_module(module)
