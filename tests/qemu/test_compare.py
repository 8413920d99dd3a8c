"""Disks are compared: each of the three is measured. What the figures are is not tested."""

from __future__ import annotations

from qemulab.compare import DISKS, JOBS, compare, table
from qemulab.environment import Environment


def test_each_disk_is_measured_in_each_round(environment: Environment) -> None:
    job = JOBS[-1]
    found = compare(environment, [job], rounds=2, seconds=0.2)
    assert set(found) == {job.name}
    assert set(found[job.name]) == set(DISKS)
    assert all(len(each) == 2 and min(each) > 0 for each in found[job.name].values())
    assert all(who in table([job], found) for who in (*DISKS, job.name))
