"""The scripts and manifests in docs/how-to/clusters.md, as far as they can be tested without clusters."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parent.parent / "docs/how-to"
PAGE = (DOCS / "clusters.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", blocks("bash"))
def test_scripts_are_valid_bash(script: str) -> None:
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_torchrun_does_not_parse_trainer_options() -> None:
    """Without `--`, torchrun takes `--run` for an abbreviation of one of its own options, wherever it occurs."""
    text = PAGE + (DOCS / "multiple-gpus.md").read_text()
    assert len(re.findall(r"-m -- trainer|- -m\n +- --\n +- trainer", text)) == 4
    assert not re.search(r"torchrun[^`]*-m trainer", text)


def test_manifests_are_consistent() -> None:
    (manifests,) = blocks("yaml")
    service, job = yaml.safe_load_all(manifests)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    args = dict(arg.partition("=")[::2] for arg in container["args"])
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert args["--rdzv-endpoint"] == f"{job['metadata']['name']}-0.{pod['subdomain']}:29500"
    assert int(args["--nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(args["--nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["cache"] == args["--cache"] and {volume["name"] for volume in pod["volumes"]} == set(mounts)
