"""Runs of `train` in several processes, as torchrun starts them; results are what they leave in their folders."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def launch(runs: list[dict], num_processes: int, timeout_seconds: float = 240) -> str:
    """runs: [{"recipe": path, "sets": [...], "output": path}], one after another in the same processes."""
    for run in runs:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            run["port"] = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "RUNS": json.dumps(runs),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks"],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_processes)
    ]
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=timeout_seconds)[0])
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    return outputs[0]


if __name__ == "__main__":
    from ming_omni.train.loop import train
    from ming_omni.train.recipe import read

    for run in json.loads(os.environ["RUNS"]):
        os.environ["MASTER_PORT"] = str(run["port"])
        train(read(run["recipe"], run["sets"]), Path(run["output"]), resume=True)
