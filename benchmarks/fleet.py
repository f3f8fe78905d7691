"""Twenty bags on two Dask workers of which one is killed, against one process.

Renders distinct frames of the synthetic corridor, writes bags from them, scores them in this
process, then on a local Dask cluster whose first worker is killed as soon as the first result is
there, and compares all that was written byte for byte. Run it from the checkout:

    python -m benchmarks.fleet --bags 20 --frames 600
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from distributed import Client, LocalCluster

from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.scoring.fleet.job import FleetOptions, FleetResult, score_fleet
from training.data.bags import StampedImage, write_image_bag
from training.data.corridor import CorridorDrive
from training.data.corridor.writer import render_frames

_START_NS = 1_700_000_000_000_000_000
_PERIOD_NS = 50_000_000


def write_bags(folder: Path, bags: int, frames: int, distinct: int) -> list[str]:
    """Write bags of 640x480 JPEG images; each begins at another of the rendered frames."""
    pictures = [frame.image for frame in render_frames(CorridorDrive(distinct, seed=0), workers=1)]
    paths = []
    for number in range(bags):
        drive = (
            StampedImage(_START_NS + index * _PERIOD_NS, pictures[(number + index) % distinct])
            for index in range(frames)
        )
        path = folder / f"bag_{number:02d}"
        write_image_bag(path, drive, compressed=True, storage="mcap")
        paths.append(str(path))
    return paths


def written(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all that a job wrote, without the seconds that it took."""
    return {
        path.name: re.sub(rb'"seconds": [0-9.]+', b"", path.read_bytes())
        for path in folder.iterdir()
    }


def with_a_lost_worker(options: FleetOptions, workers: int) -> tuple[FleetResult, float, int]:
    """Score on a local cluster and kill a worker midway.

    Returns:
        The result, its seconds, and the recordings that were finished when the worker was killed.
    """
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        ThreadPoolExecutor(1) as pool,
    ):
        with Client(cluster, set_as_default=False) as client:
            processes = list(client.run(os.getpid).values())
        start = time.perf_counter()
        on_cluster = replace(options, scheduler=cluster.scheduler_address, workers=1)
        job = pool.submit(score_fleet, on_cluster)
        while not job.done() and not list(options.output.glob("*.result.json")):
            time.sleep(0.005)
        os.kill(processes[0], signal.SIGKILL)
        finished = len(list(options.output.glob("*.result.json")))
        return job.result(), time.perf_counter() - start, finished


def main() -> int:
    """Run the comparison from the command line; gives 1 when anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="corridor", help="default %(default)s")
    parser.add_argument("--bags", type=int, default=20, help="default %(default)s")
    parser.add_argument("--frames", type=int, default=600, help="of each bag (%(default)s)")
    parser.add_argument("--distinct", type=int, default=60, help="frames rendered (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="Dask workers (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet_") as name:
        folder = Path(name)
        bags = write_bags(folder, arguments.bags, arguments.frames, arguments.distinct)
        options = FleetOptions(
            bags, resolve_model(arguments.model), folder / "one", workers=1, progress=False
        )
        start = time.perf_counter()
        score_fleet(options)
        alone_s = time.perf_counter() - start
        cluster = replace(options, output=folder / "cluster")
        result, cluster_s, finished = with_a_lost_worker(cluster, arguments.workers)
        same = written(folder / "one") == written(folder / "cluster")
    frames = sum(row.frames for row in result.results)
    figures = {
        "bags": arguments.bags,
        "frames": frames,
        "lost": arguments.bags * arguments.frames - frames,
        "failed": len(result.failed),
        "finished_when_killed": finished,
        "identical": same,
        "one_process_s": round(alone_s, 1),
        "cluster_s": round(cluster_s, 1),
    }
    print(json.dumps(figures))
    return 0 if same and not result.failed else 1


if __name__ == "__main__":
    sys.exit(main())
