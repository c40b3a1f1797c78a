"""The campaign `real-saves`: real libraries save, the real agent watches, and the writer's own
record says what should have come of it. A seed is a save: every library makes `SEEDS` of them."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from kit.agentbox import AgentBox, build_agent

from remote.agent.judge import LONG_STILL_S
from remote.agent.seal import Seal, load_seals
from remote.contract import Manifest
from sim.saves_fetch import Fetcher, contents
from sim.saves_judge import Files, Judgement, Sealed, judge, read_record
from sim.writers_ordered import WORLD

ROOT = Path(__file__).parents[2]
AT_ONCE = 5  # most of the time is waiting
SETTLED_S = 120.0
LATE_S = LONG_STILL_S + 1.5  # later than the agent ever waits for stillness


@dataclass(frozen=True)
class Library:
    """How a writer is started, and what the agent is told of it."""

    writer: str
    layout: str
    ranks: int
    checkpoints: str = "out"
    temporary: str = ""  # TMPDIR, where it matters that it is another disk
    threads: bool = False  # its ranks are threads of a writer of kit.writers_of_layouts


LIBRARIES = {
    "trainer": Library("trainer", "huggingface", 1),
    "trainer-zero2": Library("trainer-zero2", "huggingface", 2),
    "trainer-zero3": Library("trainer-zero3", "huggingface", 2),
    "deepspeed": Library("deepspeed", "deepspeed", 2),
    "accelerate": Library("accelerate", "accelerate", 2, "checkpoints"),
    "accelerate-registered": Library("accelerate-registered", "accelerate", 2, "checkpoints"),
    "dcp": Library("dcp", "dcp", 2),
    "lightning": Library("lightning", "lightning", 1),
    "lightning-other-disk": Library("lightning", "lightning", 1, temporary="/dev/shm"),
}


LIBRARIES |= {
    name: Library(name, layout, WORLD, threads=True)
    for name, layout in {
        "huggingface 4.36": "huggingface",
        "huggingface, fsdp": "huggingface",
        "open-instruct": "open-instruct",
        "open-instruct, zero 3": "open-instruct",
        "verl, critic": "verl",
        "verl, asynchronous": "verl",
        "torchllms": "torchllms",
        "torchtune": "torchtune",
        "nanochat": "nanochat",
    }.items()
}


def real_saves(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """One record a library. GPUJOB_LIBRARIES (names, with semicolons) makes it fewer."""
    wanted = os.environ.get("GPUJOB_LIBRARIES", ";".join(LIBRARIES)).split(";")
    folder.mkdir(parents=True, exist_ok=True)
    archive = build_agent(folder / "agent.pyz")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(
            lambda name: watch(name, len(seeds), folder / str(_seed(name)), archive), wanted
        )


def watch(
    name: str,
    saves: int,
    folder: Path,
    archive: Path,
    *,
    late_every: int = 10,
    late_s: float = LATE_S,
    fetch_every: int = 3,
) -> dict[str, Any]:
    """Let one library make its saves under the agent's eyes, and judge what came of it."""
    library = LIBRARIES[name]
    words = ["--saves", str(saves), "--late-every", str(late_every), "--late-s", str(late_s)]
    words += ["--seed", str(_seed(name))]
    box = AgentBox(folder / "home", archive)
    try:
        with tempfile.TemporaryDirectory(dir=library.temporary or None) as temporary:
            _start(box, library, Path(temporary), words)
            fetcher = Fetcher(box, folder / "mirror", fetch_every)
            try:
                box.await_fact("agent.settled", timeout_s=SETTLED_S + saves * 3)
            except AssertionError:
                fetcher.trouble.append("the run never settled")
            finally:
                fetcher.close()
        return _judged(name, box, fetcher, saves)
    finally:
        box.close()


def _seed(name: str) -> int:
    return list(LIBRARIES).index(name)


def _start(box: AgentBox, library: Library, temporary: Path, words: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    ranks = [*launcher, str(library.ranks)] if library.ranks > 1 and not library.threads else []
    writer = ["-m", "sim.writers", library.writer, "--record", str(box.record)]
    environment = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "TMPDIR": str(temporary),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **({"WORLD_SIZE": str(WORLD)} if library.threads else {}),
    }
    box.spec(
        1,
        shlex.join(["exec", sys.executable, *ranks, *writer, *words]),
        env=environment,
        layout=library.layout,
        checkpoints=library.checkpoints,
        world_size=library.ranks,
    )
    box.start()


def _judged(name: str, box: AgentBox, fetcher: Fetcher, asked: int) -> dict[str, Any]:
    (exited,) = box.facts("trainer.exited")
    saves, late = read_record(box.record)
    seals = load_seals(box.root / "seals")
    told = judge(saves, map(_sealed, seals))
    told.violations += _mirrored(fetcher, seals)
    told.violations += [f"agent.error: {each.data['message']}" for each in box.facts("agent.error")]
    if exited.data["rc"] != 0 or len(saves) != asked:
        told.violations.append(f"the writer made {len(saves)} saves: {exited.data['tail'][-500:]}")
    told_of = {"seed": _seed(name), "library": name, "saves": len(saves), "late": late}
    return {**told_of, **_summary(told, seals, fetcher)}


def _summary(told: Judgement, seals: list[Seal], fetcher: Fetcher) -> dict[str, Any]:
    waits = sorted(told.waits_s)
    return {
        "sealed": len(seals),
        "mirrored": len(fetcher.published),
        "violations": told.violations,
        "saves_and_missed_by_life_s": {str(least): each for least, each in told.lives.items()},
        "seal_after_s": {
            "median": round(median(waits), 2) if waits else None,
            "most": round(waits[-1], 2) if waits else None,
        },
    }


def _mirrored(fetcher: Fetcher, seals: list[Seal]) -> list[str]:
    """What could be seen in the mirror is what was sealed, which `judge` has looked at."""
    told = {(seal.name, seal.generation): _files(seal.manifest) for seal in seals}
    torn = [
        f"the mirror showed {name}.{generation} torn"
        for (name, generation), found in fetcher.shown.items()
        if found != told.get((name, generation))
    ]
    return [*fetcher.trouble, *torn, *(f"the mirror showed {folder}" for folder in fetcher.seen)]


def _sealed(seal: Seal) -> Sealed:
    found = contents(seal.folder / "tree") if seal.is_held else None
    sealed_at = _moment(seal.sealed_at)
    told, final = _files(seal.manifest), bool(seal.manifest.meta["final"])
    return Sealed(seal.name, seal.generation, told, found, sealed_at, final)


def _files(manifest: Manifest) -> Files:
    return {entry.path: (entry.size, entry.sha256) for entry in manifest.files}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
