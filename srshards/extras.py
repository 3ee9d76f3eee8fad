"""Packages that only a part of the work needs, and how to install them."""

# Import names, and the extra of pyproject.toml that brings the package.
_EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "altair": "report",
    "jinja2": "report",
    "vl_convert": "report",
}


def install_hint(error: ModuleNotFoundError) -> str | None:
    """What to type when an import failed for want of an optional package; None when it is another that is missing."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    return (
        f"this needs {package}, which is not installed. In a clone of sr-shards: pip install -e '.[{extra}]'; "
        f"elsewhere: pip install 'sr-shards[{extra}]'"
    )
