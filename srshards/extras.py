"""Optional packages, and how to install them."""

# The extra of pyproject.toml that installs a package, by import name.
_EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "altair": "report",
    "jinja2": "report",
    "markupsafe": "report",  # a requirement of jinja2
    "vl_convert": "report",
    "ray": "ray",
    "s3fs": "s3",
    "lmdb": "lmdb",
    "huggingface_hub": "hf",
    "skimage": "samples",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "spandrel": "arches",
    "torchvision": "arches",
    "einops": "arches",  # a requirement of spandrel
    "pyiqa": "metrics",
    "pytorch_optimizer": "optimizers",
}


def install_command(package: str) -> str:
    """Return how to install an optional package, given by its import name, which is its own name if it has no extra."""
    extra = _EXTRAS.get(package)
    if extra is None:
        return f"run `pip install {package}`"
    return f"run `pip install 'sr-shards[{extra}]'` or, in a clone of sr-shards, `pip install -e '.[{extra}]'`"


def install_hint(error: ModuleNotFoundError) -> str | None:
    """Return a message for a missing optional package; None when the missing package is not optional."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return None
    return f"this requires {package}, which is not installed; {install_command(package)}"
