"""A push and a fetch of one checkpoint through bad weather, with the pushing program killed at
random moments: at no moment may S3 show a checkpoint that is not whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.s3 import BUCKET, KEYS, RCLONE, Fault, Weather, moto, open_bucket, proxy, rclone

from orchestrator.adapters.s3 import S3Store
from orchestrator.errors import GpujobError, Transient
from orchestrator.ports import StorePlace
from remote.contract import Manifest, hash_stream, pushed_uri, split_uri
from remote.s3 import Absent, chunks_of, fetch

FAULTS: tuple[Fault, ...] = ("500", "503", "slow", "reset", "truncated", "flipped", "etag")
MB = 1_000_000
NAME = "checkpoint-10"
MOST_TRIES = 40


def s3_weather(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Even seeds against moto, odd ones against rclone."""
    with ExitStack() as stack:
        urls = [stack.enter_context(moto())]
        if RCLONE:
            urls.append(stack.enter_context(rclone(folder / "served")))
        for seed in seeds:
            yield _live_through(folder / str(seed), urls[seed % len(urls)], seed)


@dataclass
class _Box:
    """What a box has on disk: one seal, and where to push it to."""

    root: Path
    manifest: Manifest
    base: str

    @staticmethod
    def make(root: Path, url: str, seed: int, dice: random.Random) -> _Box:
        folder = root / "seals" / f"{NAME}.1"
        sizes = {"weights": dice.randint(1, 45) * MB, "adapter": dice.randint(0, 18) * MB}
        sizes |= {f"small/{each}": dice.randint(0, 50_000) for each in range(dice.randint(1, 30))}
        entries = []
        for name, size in sizes.items():
            path = folder / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dice.randbytes(size))
            with path.open("rb") as stream:
                entries.append(hash_stream(stream, name))
        meta = {"name": NAME, "generation": 1, "sealed_at": "2026", "final": False, "attempt": 1}
        manifest = Manifest(tuple(entries), meta)
        (folder / "manifest.json").write_bytes(manifest.encode())
        seal = {"v": 1, "max_steps": None, "tree": {}, "known": {}}
        (folder / "seal.json").write_text(json.dumps(seal))
        also = f"s3://{BUCKET}/{seed}"
        aim = {"v": 1, "also": also, "run": "run", "endpoint_url": url, "pause_s": 0.02}
        (root / "push.json").write_text(json.dumps({**aim, "patience_s": 10.0}))
        (root / "s3.env").write_text(f"KEY_ID={KEYS.key_id}\nSECRET={KEYS.secret}\n")
        return _Box(root, manifest, split_uri(pushed_uri(also, "run", NAME, manifest.digest))[1])

    def push(self, kill_after_s: float | None) -> bool:
        """Whether it says that it is done."""
        words = ["push", "--parent", str(os.getpid()), "--root", str(self.root)]
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(self.root)}
        process = subprocess.Popen([sys.executable, "-m", "remote.push", *words], env=environ)
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return (self.root / "seals" / f"{NAME}.1" / "pushed").exists()


def _live_through(folder: Path, url: str, seed: int) -> dict[str, Any]:
    dice = random.Random(seed)
    weather = Weather(seed, FAULTS, dice.uniform(0.0, 0.25), slow_s=0.05)
    began, violations = time.monotonic(), list[str]()
    with proxy(url, weather) as near:
        box = _Box.make(folder / "root", near, seed, dice)
        kills = dice.randint(0, 3)
        tries = 0
        done = False
        while not done and tries < MOST_TRIES:
            done = box.push(dice.uniform(0.5, 3.0) if tries < kills else None)
            tries += 1
            violations += _torn(url, box)
        if not done:
            violations.append(f"not pushed after {tries} tries")
        else:
            violations += _fetched(near, box, folder)
    took_s = round(time.monotonic() - began, 1)
    sent = round(weather.sent_bytes / box.manifest.size_bytes, 2)
    told = {"seed": seed, "tries": tries, "kills": kills, "faults": round(weather.share, 2)}
    return {**told, "sent_ratio": sent, "took_s": took_s, "violations": violations}


def _torn(url: str, box: _Box) -> list[str]:
    """What S3 shows now, read without the weather: nothing, or all of it."""
    bucket = open_bucket(url)
    try:
        manifest = bucket.manifest(box.base)
    except Absent:
        return []
    if manifest != box.manifest:
        return ["another manifest"]
    wanted = [each for entry in manifest.files for each in chunks_of(entry)]
    try:
        list(fetch(bucket, box.base, wanted))
    except Exception as error:
        return [f"torn: {error}"]
    return []


def _fetched(url: str, box: _Box, folder: Path) -> list[str]:
    into = folder / "here.partial"
    place = StorePlace(BUCKET, url, "", Path("/none"))
    for _ in range(MOST_TRIES):
        store = S3Store(place, lambda: KEYS, patience_s=10.0, pause_s=0.02)
        try:
            store.pull(box.base, into, store.manifest(box.base), lambda size: None)
            break
        except Transient:
            continue
        except GpujobError as error:
            return [f"refused: {error}"]
    else:
        return ["never fetched"]
    tree = box.root / "seals" / f"{NAME}.1" / "tree"
    wrong = [
        entry.path
        for entry in box.manifest.files
        if (into / entry.path).read_bytes() != (tree / entry.path).read_bytes()
    ]
    return [f"other bytes: {path}" for path in wrong]
