"""The stream-overhead campaign: 512 MB and more through real sshd, with at least three cuts each;
how many more bytes than the payload came through the proxy."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from kit.agentbox import build_agent
from kit.boxes import RUN, Rented, end_all, provider_at, rent
from kit.chaos import Back, Fault, Proxy
from kit.served import environment, write_sizes

from orchestrator.adapters.ssh import SshBoxes
from sim.stream_chaos import SEAL, Client, differences

MB = 10**6
SIZES = [330 * MB, 150 * MB, 40 * MB, *[20_000] * 50]
KINDS = ["cut", "server", "client"]
LEAST_CUTS, MOST_CUTS = 3, 5
MOST_OVERHEAD = 0.05
FIRST = 0.02  # nothing happens before this share of the bytes: there is nothing to lose yet


def stream_overhead(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """One box serves all seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    provider, boxes = provider_at(folder / "local"), SshBoxes(folder / "state")
    try:
        box = rent(provider, boxes)
        sealed = _sealed(box, folder)
        for seed in seeds:
            yield _survive(seed, folder / str(seed), box, folder / "state", sealed)
            shutil.rmtree(folder / str(seed), ignore_errors=True)
    finally:
        end_all(provider)


def _sealed(box: Rented, folder: Path) -> Path:
    root = box.folder / "home" / ".gpujob" / RUN
    write_sizes(root / "pins" / "checkpoint-1.1", random.Random(3), SIZES)
    words = [sys.executable, "-c", SEAL, str(root)]
    subprocess.run(words, env=environment(folder), check=True)
    build_agent(root / "agent.pyz")
    return root / "seals" / "checkpoint-1.1"


def _survive(seed: int, folder: Path, box: Rented, state: Path, sealed: Path) -> dict[str, Any]:
    rng, size = random.Random(seed), sum(SIZES)
    folder.mkdir()
    listener = socket.create_server(("127.0.0.1", 0), backlog=32)
    told = {
        "state": str(state),
        "instance": box.endpoint.instance,
        "port": listener.getsockname()[1],
        "user": box.endpoint.user,
        "run": RUN,
    }
    program = [sys.executable, "-m", "sim.stream_victim"]
    way = ["--ssh", json.dumps(told)]
    client = Client("pull", folder, sealed, program=program, way=way)
    count = rng.randint(LEAST_CUTS, MOST_CUTS)
    places = sorted(rng.randrange(int(FIRST * size), size) for _ in range(count))
    faults = [Fault(at, rng.choice(KINDS)) for at in places]
    # What is on its way on each connection is lost, which nobody can help: one such cut a seed.
    one = rng.randrange(count)
    faults[one] = Fault(places[one], "cut all")
    proxy = Proxy(listener, lambda: _connect(box), faults, seed, kill_client=client.kill)
    began = time.monotonic()
    try:
        violations = client.run()
    finally:
        client.kill()
        proxy.close()
    violations = violations or differences(sealed / "tree", client.dest)
    overhead = proxy.down / size - 1
    if overhead > MOST_OVERHEAD:
        violations.append(f"{overhead:.1%} more bytes than the payload")
    return {
        "seed": seed,
        "faults": proxy.happened,
        "connections": proxy.connections,
        "killed": client.killed,
        "payload_bytes": size,
        "moved_bytes": proxy.down,
        "overhead": round(overhead, 4),
        "seconds": round(time.monotonic() - began, 2),
        "violations": violations,
    }


def _connect(box: Rented) -> Back:
    end = socket.create_connection((box.endpoint.host, box.endpoint.port))
    port = end.getsockname()[1]
    return Back(end, lambda: _kill_sshd(port))


def _kill_sshd(port: int) -> None:
    """The sshd process that serves the connection from this port."""
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error, ProcessLookupError):
            if process.info["name"] == "sshd" and any(
                each.raddr and each.raddr.port == port for each in process.net_connections("tcp")
            ):
                process.kill()
