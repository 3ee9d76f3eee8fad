"""docs/clusters.md: what can be checked without a cluster of each kind."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parent.parent / "docs/clusters.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", blocks("bash"))
def test_scripts_are_bash(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_torchrun_never_sees_the_options_of_the_trainer() -> None:
    """It takes `--run` for the beginning of one of its own, wherever it stands, unless `--` comes first."""
    assert len(re.findall(r"-m -- trainer|- -m\n +- --\n +- trainer", PAGE)) == 4
    assert not re.search(r"torchrun[^`]*-m trainer", PAGE)


def test_the_pods_of_the_manifests_find_each_other() -> None:
    (manifests,) = blocks("yaml")
    service, job = yaml.safe_load_all(manifests)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    words = dict(word.partition("=")[::2] for word in container["args"])
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert words["--rdzv-endpoint"] == f"{job['metadata']['name']}-0.{pod['subdomain']}:29500"
    assert int(words["--nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(words["--nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["cache"] == words["--cache"] and {volume["name"] for volume in pod["volumes"]} == set(mounts)
