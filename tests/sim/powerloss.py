"""The campaign `power-loss`: the power fails under the mirror and the ledger at a seeded point.
What was acknowledged is there, whole; what can be seen is whole; and the rest can be fetched."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from kit.agentbox import AgentBox, build_agent

from orchestrator.adapters.check import problems
from orchestrator.adapters.mirror import held
from remote.agent.seal import load_seals
from remote.contract import Manifest
from sim.powerloss_disk import LazyDisk, program

ROOT = Path(__file__).parents[2]
NAMES = ("checkpoint-10", "checkpoint-20", "checkpoint-30")
WORDS = 1 + 3 * len(NAMES)  # what the victim says in all
MAX_DELAY_S = 0.15
PATIENCE_S = 60.0
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
SAVING = """
import json, pathlib, random, zipfile

def weights(size):
    head = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(head).to_bytes(8, "little") + head + random.Random(0).randbytes(size)

def state(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\\x80\\x02N.")
        archive.writestr("archive/data/0", data)

for step in (10, 20, 30):
    folder = pathlib.Path("out/checkpoint-%d" % step)
    folder.mkdir(parents=True)
    chance = random.Random(step)
    (folder / "model.safetensors").write_bytes(weights(3_000_000))
    (folder / "config.json").write_bytes(b"{}")
    state(folder / "optimizer.pt", chance.randbytes(17_500_000 if step == 20 else 900_000))
    for name in ("scheduler.pt", "rng_state.pth"):
        state(folder / name, chance.randbytes(3000))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 30}))
"""


@dataclass(frozen=True)
class Source:
    """What the agent of a box has sealed: everything that is to come home."""

    agent: Path
    root: Path
    manifests: dict[str, Manifest]

    def tree(self, name: str) -> Path:
        return self.root / "seals" / f"{name}.1" / "tree"


def power_loss(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """The disk is mounted once; each seed has a folder of it for itself."""
    program()
    source = _source(folder / "box")
    with LazyDisk(folder / "lazy") as disk:
        for seed in seeds:
            yield _live_through(disk, disk.path / str(seed), source, seed)
            shutil.rmtree(disk.path / str(seed))


def _live_through(disk: LazyDisk, place: Path, source: Source, seed: int) -> dict[str, Any]:
    chance = Random(seed)
    words, delay_s = chance.randrange(1, WORDS + 1), chance.choice((0.0, chance.random()))
    place.mkdir()
    _copy_with_rivals(source.tree(NAMES[1]), place)
    said = _run_until(place, source, words, delay_s * MAX_DELAY_S)
    disk.lose_power()
    acked = [word.partition(" ")[2] for word in said if word.startswith("acked")]
    violations = [
        *wrong_in_mirror(place / "mirror", source, acked),
        *wrong_in_ledger(place / "ledger.db", source, acked),
    ]
    visible = len(_visible(place / "mirror"))
    rivals = {name: _whole(place / name, source.manifests[NAMES[1]]) for name in ("rsync", "scp")}
    violations += [f"{name} lost nothing: no power was lost" for name in rivals if rivals[name] > 0]
    violations += _recover(place, source)
    return {
        "seed": seed,
        "lost_after": said[-1],
        "delay_s": round(delay_s * MAX_DELAY_S, 3),
        "acked": len(acked),
        "visible": visible,
        "whole_files_of_rsync_and_scp": [rivals["rsync"], rivals["scp"]],
        "violations": violations,
    }


def _source(home: Path) -> Source:
    """Three checkpoints that the real agent sealed; the first file of each is the same."""
    archive = build_agent(home.with_suffix(".pyz"))
    box = AgentBox(home, archive)
    try:
        (box.work / "save.py").write_text(SAVING)
        box.spec(1, f"{sys.executable} save.py && sleep 2")
        box.start()
        box.await_fact("agent.settled", timeout_s=PATIENCE_S)
    finally:
        box.close()
    seals = {seal.name: seal.manifest for seal in load_seals(box.root / "seals")}
    assert sorted(seals) == sorted(NAMES), f"sealed: {sorted(seals)}"
    return Source(box.root / "agent.pyz", box.root, seals)


def _copy_with_rivals(tree: Path, place: Path) -> None:
    """Both say by their exit that the copy is there. scp talks to a local SFTP server."""
    commands = (
        ["rsync", "-a", f"{tree}/", str(place / "rsync")],
        ["scp", "-q", "-r", "-D", SFTP_SERVER, f"box:{tree}", str(place / "scp")],
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)


def _run_until(place: Path, source: Source, words: int, delay_s: float) -> list[str]:
    """Let the victim say so many words, then kill it: as it stands there, or `delay_s` later."""
    with _victim(place, source) as victim:
        said = [_listen(victim) for _ in range(1)]
        while len(said) < words:
            _answer(victim)
            said.append(_listen(victim))
        if delay_s:
            _answer(victim)
            time.sleep(delay_s)
        victim.kill()
        said += _rest(victim)
    return said


def _recover(place: Path, source: Source) -> list[str]:
    """After the loss everything comes home."""
    with _victim(place, source) as victim:
        rest = victim.communicate("\n" * WORDS, timeout=PATIENCE_S)
        if victim.returncode != 0:
            return [f"it did not recover: {rest[1][-800:]}"]
    return wrong_in_mirror(place / "mirror", source, list(NAMES))


def _victim(place: Path, source: Source) -> subprocess.Popen[str]:
    words = ["--mirror", str(place / "mirror"), "--ledger", str(place / "ledger.db")]
    words += ["--agent", str(source.agent), "--root", str(source.root), *NAMES]
    return subprocess.Popen(
        [sys.executable, "-m", "sim.powerloss_victim", *words],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _listen(victim: subprocess.Popen[str]) -> str:
    assert victim.stdout and victim.stderr
    ready, _, _ = select.select([victim.stdout], [], [], PATIENCE_S)
    line = victim.stdout.readline() if ready else ""
    if not line:
        victim.kill()
        raise AssertionError(f"the victim said nothing more: {victim.stderr.read()}")
    return line.strip()


def _answer(victim: subprocess.Popen[str]) -> None:
    assert victim.stdin
    victim.stdin.write("\n")
    victim.stdin.flush()


def _rest(victim: subprocess.Popen[str]) -> list[str]:
    """What it said between the last answer and its end."""
    assert victim.stdout
    return victim.stdout.read().split("\n")[:-1]


def _visible(mirror: Path) -> list[Path]:
    if not mirror.is_dir():
        return []
    return sorted(path for path in mirror.iterdir() if not path.name.startswith("."))


def wrong_in_mirror(mirror: Path, source: Source, acked: list[str]) -> list[str]:
    wrong = []
    manifests = {each.path.name: each.manifest for each in held(mirror)}
    for path in _visible(mirror):
        expected = source.manifests[path.name]
        if path.name not in manifests or manifests[path.name].digest != expected.digest:
            wrong.append(f"{path.name} can be seen without its manifest")
        wrong += [f"{path.name} can be seen: {each}" for each in problems(path, expected)]
    seen = {path.name for path in _visible(mirror)}
    return wrong + [f"{name} was acknowledged and is gone" for name in acked if name not in seen]


def wrong_in_ledger(path: Path, source: Source, acked: list[str]) -> list[str]:
    db = sqlite3.connect(path)
    try:
        health = [row[0] for row in db.execute("PRAGMA integrity_check")]
        query = "SELECT data ->> 'name', data ->> 'digest' FROM events WHERE kind = ?"
        told = dict(db.execute(query, ("checkpoint.mirrored",)))
    except sqlite3.Error as error:
        return [f"the ledger: {error}"]
    finally:
        db.close()
    lost = [name for name in acked if told.get(name) != source.manifests[name].digest]
    wrong = [f"the ledger: {each}" for each in health if each != "ok"]
    return wrong + [f"the ledger forgot {name}" for name in lost]


def _whole(folder: Path, manifest: Manifest) -> int:
    """How many of its files are what they were when they were copied."""
    return sum(
        hashlib.sha256((folder / entry.path).read_bytes()).hexdigest() == entry.sha256
        for entry in manifest.files
        if (folder / entry.path).exists()
    )
