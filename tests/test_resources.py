"""CPUs and memory available to a process, limited by the machine and by its cgroups."""

import os
from pathlib import Path

import psutil
import pytest

from srshards.process import cgroups
from srshards.process.resources import available_cpus, available_memory_bytes

Tree = dict[str, str]


class Groups:
    """A stand-in for /proc/self/cgroup and /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.membership, self.root = folder / "membership", folder / "cgroup"
        self.root.mkdir()

    def write(self, membership: str, tree: Tree) -> None:
        self.membership.write_bytes(os.fsencode(membership))
        for name, content in tree.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(content)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    groups = Groups(tmp_path)
    monkeypatch.setattr(cgroups, "_MEMBERSHIP", groups.membership)
    monkeypatch.setattr(cgroups, "_ROOT", groups.root)
    return groups


def v2(folder: str, limit: str, used: int = 0, stat: str = "anon 4\n") -> Tree:
    """Return the memory files of a version 2 cgroup."""
    return {f"{folder}memory.max": f"{limit}\n", f"{folder}memory.current": f"{used}\n", f"{folder}memory.stat": stat}


def v1(folder: str, limit: int, used: int = 0, stat: str = "") -> Tree:
    """Return the memory files of a version 1 cgroup."""
    names = ("limit_in_bytes", "usage_in_bytes")
    values = zip(names, (limit, used), strict=True)
    return {f"{folder}memory.{name}": f"{value}\n" for name, value in values} | {f"{folder}memory.stat": stat}


_NESTED = "0::/user.slice/a.scope\n"
_SLURM_1 = "9:name=systemd:/x\n4:memory,hugetlb:/slurm/uid_0/job_7/step_0\n0::/x\n"
_SLURM_2 = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n"
_NO_LIMIT_1 = 0x7FFF_FFFF_FFFF_F000


@pytest.mark.parametrize(
    ("membership", "tree", "expected"),
    [
        pytest.param("0::/\n", v2("", "5000", 4000), 1000, id="root"),
        pytest.param("0::/\n", v2("", "5000", 6000), 0, id="more used than allowed"),
        pytest.param("0::/\n", v2("", "max", 4000), None, id="max"),
        pytest.param("0::/a\n", v2("a/", "max") | v2("", "90"), 90, id="max below a limit"),
        pytest.param(
            "0::/\n",
            v2("", "1000", 900, "anon 700\nactive_file 20\ninactive_file 30\nfile 50\n"),
            150,
            id="file cache is free",
        ),
        pytest.param("0::/a\n", {"a/memory.max": "1000", "a/memory.current": "300"}, 700, id="no statistics"),
        pytest.param(
            "0::/a\n",
            v2("a/", "1000", 300, "broken\nactive_file x\ninactive_file 5\n"),
            705,
            id="malformed statistics",
        ),
        pytest.param("0::/a\n", {"a/memory.max": "1000"}, None, id="unknown use"),
        pytest.param("0::/a\n", v2("a/", "max", 10) | {"a/memory.high": "50"}, 40, id="high"),
        pytest.param("0::/a\n", v2("a/", "30", 10) | {"a/memory.high": "50"}, 20, id="high above max"),
        pytest.param(_NESTED, v2("user.slice/a.scope/", "900") | v2("user.slice/", "500"), 500, id="outer"),
        pytest.param(_NESTED, v2("user.slice/a.scope/", "400") | v2("user.slice/", "500"), 400, id="inner"),
        pytest.param(_NESTED, v2("other.slice/", "5"), None, id="sibling"),
        pytest.param(_SLURM_2, v2("system.slice/slurmstepd.scope/job_7/", "800", 50), 750, id="slurm, version 2"),
        pytest.param(
            _SLURM_1,
            v1("memory/slurm/uid_0/job_7/step_0/", _NO_LIMIT_1) | v1("memory/slurm/uid_0/job_7/", 700, 60),
            640,
            id="slurm, version 1",
        ),
        pytest.param("4:memory:/docker/abc\n", v1("memory/", 300, 100), 200, id="version 1, path on the host"),
        pytest.param(
            "4:memory:/\n",
            v1("memory/", 300, 100, "inactive_file 1\ntotal_inactive_file 40\ntotal_active_file 2\n"),
            242,
            id="version 1, file cache of descendants",
        ),
        pytest.param("4:memory,blkio:/a\n", v1("memory,blkio/a/", 300, 100), 200, id="shared mount"),
        pytest.param("4:memory:/a\n0::/b\n", v1("memory/a/", 300) | v2("unified/b/", "200"), 200, id="hybrid"),
        pytest.param("0::/../outside\n", v2("", "100") | v2("outside/", "5"), 100, id="another namespace"),
        pytest.param("0::/a\u2028b\x85\udcff/mine\n", v2("a\u2028b\x85\udcff/", "70"), 70, id="unusual group names"),
        pytest.param("4:memory:/\n", v1("memory/", _NO_LIMIT_1), _NO_LIMIT_1, id="version 1, no limit"),
        pytest.param("", v2("", "100"), None, id="no group"),
        pytest.param("nonsense\n:\n0:memory\n", v2("", "100"), None, id="invalid membership"),
        pytest.param("0::/a\n", {"a/memory.max": "", "a/memory.current": "x"}, None, id="invalid numbers"),
    ],
)
def test_memory_is_the_tightest_limit(
    groups: Groups, membership: str, tree: Tree, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.write(membership, tree)
    assert cgroups.memory_free_bytes() == expected
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 123_456}))
    assert available_memory_bytes() == (123_456 if expected is None else min(expected, 123_456))


@pytest.mark.parametrize(
    ("membership", "tree", "expected"),
    [
        pytest.param("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 1.5, id="version 2"),
        pytest.param("0::/a\n", {"a/cpu.max": "max 100000\n"}, None, id="max"),
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000"}, 3, id="outer"),
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "20000 10000\n", "a/cpu.max": "300000 100000"}, 2, id="inner"),
        pytest.param(
            "5:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, 0.5, id="1"
        ),
        pytest.param(
            "5:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "700000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            7,
            id="1, shared mount",
        ),
        pytest.param(
            "5:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None, id="1, none"
        ),
        pytest.param("5:cpuset:/a\n", {"cpuset/a/cpu.max": "1 100000"}, None, id="another controller"),
        pytest.param(
            "5:cpu:/a\n0::/b\n",
            {
                "cpu/a/cpu.cfs_quota_us": "400000",
                "cpu/a/cpu.cfs_period_us": "100000",
                "unified/b/cpu.max": "300000 100000",
            },
            3,
            id="hybrid",
        ),
        pytest.param("0::/a\n", {"a/cpu.max": "100000"}, None, id="incomplete line"),
        pytest.param("0::/a\n", {"a/cpu.max": "1 0"}, None, id="no period"),
        pytest.param("0::/a\n", {}, None, id="no files"),
    ],
)
def test_cpus_are_the_tightest_quota(
    groups: Groups, membership: str, tree: Tree, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.write(membership, tree)
    assert cgroups.cpu_quota() == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))
    assert available_cpus() == {None: 4, 0.5: 1, 1.5: 2, 2: 2, 3: 3, 7: 4}[expected]


def test_without_cgroups_the_machine_is_the_limit(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cgroups.memory_free_bytes() is None and cgroups.cpu_quota() is None
    assert 1 << 20 < available_memory_bytes() <= psutil.virtual_memory().total
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cpus() == os.cpu_count()


def test_affinity_limits_the_cpus() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= available_cpus() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
