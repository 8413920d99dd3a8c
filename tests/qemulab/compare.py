"""How fast a disk is: ours, QEMU's own, and the vhost-user one of qemu-storage-daemon.

    make bench-qemu

One guest has all three at once, each on an image of its own with the same content, in the page
cache of the host. fio in the guest measures one after the other, and all again in each round, so
that what else the machine does meets all three. Neither the guest's page cache nor a file system
is in the way. A figure is the median over the rounds, and a ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemonlab import wait_until
from qemulab.environment import Environment, NoEnvironment, provide
from qemulab.guest import Guest
from qemulab.hosting import hosting
from qemulab.machine import running

IMAGE_SIZE = 512 << 20
MEBIBYTE = 1 << 20
RESULT = Path(__file__).parents[2] / "build" / "bench-virtio.json"


@dataclass(frozen=True, slots=True)
class Job:
    """What is measured.

    Attributes:
        name: in the table.
        arguments: fio's.
        unit: what is counted in a second: MiB, or requests.
        wanted: what share of QEMU's own disk is wanted of ours.
    """

    name: str
    arguments: str
    unit: str
    wanted: float


JOBS = (
    Job("sequential read, 1 MiB", "--rw=read --bs=1M", "MiB", 0.8),
    Job("sequential write, 1 MiB", "--rw=write --bs=1M", "MiB", 0.8),
    Job("random read, 4 KiB", "--rw=randread --bs=4k", "requests", 0.5),
    Job(
        "random read, 4 KiB, 16 in flight",
        "--rw=randread --bs=4k --ioengine=libaio --iodepth=16",
        "requests",
        0.5,
    ),
)

DISKS = {"devicehost": "vda", "QEMU": "vdb", "qemu-storage-daemon": "vdc"}
"""Who serves which disk of the guest."""
OURS, OWN, _ = DISKS

_FILE = "driver=file,aio=threads,cache.direct=off,cache.no-flush=off"
_CONTENT = random.Random(1).randbytes(MEBIBYTE)

Figures = Mapping[str, Sequence[float]]
"""By who serves the disk, a figure for each round: MiB or requests in a second."""


def measure(guest: Guest, job: Job, disk: str, seconds: float) -> float:
    """Run fio once in the guest; return MiB or requests in a second."""
    said = guest.run(
        f"fio --name=job --filename=/dev/{disk} --direct=1 --ioengine=psync {job.arguments}"
        f" --size={IMAGE_SIZE} --time_based --runtime={1000 * seconds:.0f}ms"
        " --thread --output-format=json",
        60 + 10 * seconds,
    )
    done = json.loads(said[said.index("{") :])["jobs"][0]
    both = [done["read"], done["write"]]
    if job.unit == "MiB":
        return sum(float(each["bw_bytes"]) for each in both) / MEBIBYTE
    return sum(float(each["iops"]) for each in both)


@contextmanager
def guest_with_three_disks(environment: Environment, folder: Path) -> Iterator[Guest]:
    """Boot it."""
    ours, own, other = (folder / f"{disk}.img" for disk in DISKS.values())
    for image in (ours, own, other):
        with image.open("wb") as content:
            for _ in range(IMAGE_SIZE // MEBIBYTE):
                content.write(_CONTENT)
    with hosting(folder / "server") as server, _storage_daemon(environment, other) as socket:
        devices = [
            server.plug("virtio-blk", "disk0", file=ours),
            {"driver": "virtio-blk-pci", "drive": "own"},
            {"driver": "vhost-user-blk-pci", "chardev": "other"},
        ]
        with running(
            environment,
            folder,
            *("-blockdev", f"{_FILE},filename={own},node-name=own"),
            *("-chardev", f"socket,id=other,path={socket}"),
            devices=devices,
            programs=["fio"],
        ) as machine:
            yield machine.guest


@contextmanager
def _storage_daemon(environment: Environment, image: Path) -> Iterator[Path]:
    socket = image.with_suffix(".vhost")
    export = "type=vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix"
    process = subprocess.Popen(
        environment.command(
            "qemu-storage-daemon",
            *("--blockdev", f"{_FILE},filename={image},node-name=disk"),
            *("--export", f"{export},addr.path={socket}"),
        ),
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until(socket.exists, "qemu-storage-daemon listens")
        yield socket
    finally:
        process.kill()
        process.wait()


def compare(
    environment: Environment, jobs: Sequence[Job], rounds: int, seconds: float
) -> dict[str, Figures]:
    """Measure; return the figures of each job by its name."""
    figures: dict[str, dict[str, list[float]]] = {
        job.name: {who: [] for who in DISKS} for job in jobs
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        guest_with_three_disks(environment, Path(folder)) as guest,
    ):
        for _ in range(rounds):
            for job in jobs:
                for who, disk in DISKS.items():
                    figures[job.name][who].append(measure(guest, job, disk, seconds))
    return dict(figures)


def ratio(figures: Figures, who: str = OURS) -> float:
    """Return how many times as fast one is as QEMU's own."""
    pairs = zip(figures[who], figures[OWN], strict=True)
    return statistics.median(one / own for one, own in pairs)


def table(jobs: Sequence[Job], figures: Mapping[str, Figures]) -> str:
    """Return the figures for a reader, in Markdown."""
    lines = [
        f"| in a second | {' | '.join(DISKS)} | {OURS} / {OWN} | wanted |\n",
        f"|---|{'---|' * (len(DISKS) + 2)}\n",
    ]
    for job in jobs:
        medians = (statistics.median(figures[job.name][who]) for who in DISKS)
        shown = (f"{each:,.0f} {job.unit}" for each in medians)
        share = ratio(figures[job.name])
        lines.append(f"| {job.name} | {' | '.join(shown)} | {share:.2f} | {job.wanted} |\n")
    return "".join(lines)


def main() -> None:
    """Measure, print the table and write the file."""
    parser = argparse.ArgumentParser(description="compare disks in a guest of QEMU")
    parser.add_argument("--quick", action="store_true", help="a short look")
    quick = parser.parse_args().quick
    try:
        environment = provide()
    except NoEnvironment as why:
        sys.exit(f"no QEMU to measure with: {why}")
    rounds, seconds = (1, 1.0) if quick else (5, 3.0)
    figures = compare(environment, JOBS, rounds, seconds)
    sys.stdout.write(table(JOBS, figures))
    report = {
        "qemu": environment.version,
        "kernel": environment.modules.name,
        "seconds": seconds,
        "figures": figures,
        "ratios": {
            name: {who: ratio(each, who) for who in DISKS} for name, each in figures.items()
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
