"""The compiled core. Without a compiler the package installs all the same. All else is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "srshards.native._core",
            sorted(glob("srshards/native/*.c")),
            depends=glob("srshards/native/*.h"),
            extra_compile_args=["-O3", "-std=gnu11"],
            py_limited_api=True,
            optional=True,
        )
    ]
)
