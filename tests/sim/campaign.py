"""Long seeded campaigns: `python -m sim.campaign ambiguous-creates --seeds 200` writes
campaigns/ambiguous-creates.json. `--only SEED` runs a single one again."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kit.cloud import Cloud

from sim.clouds_world import START, SharedClock
from sim.creates import live_through
from sim.gad_toy import gad_toy
from sim.ladder import climb_through
from sim.powerloss import power_loss
from sim.s3_weather import s3_weather
from sim.saves import real_saves
from sim.stream_chaos import stream_chaos
from sim.stream_overhead import stream_overhead
from sim.trainer_resume import trainer_resume

ROOT = Path(__file__).parents[2]
CLOUDS = ("runpod", "thunder")


def ambiguous_creates(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Even seeds on one cloud, odd ones on the other."""
    for place, kind in enumerate(CLOUDS):
        cloud = Cloud.start(
            folder / kind, kind, driven=START, boxes="none", requests_per_minute=600
        )
        try:
            clock = SharedClock(cloud)
            for seed in seeds:
                if seed % len(CLOUDS) == place:
                    yield live_through(cloud, clock, folder / kind / str(seed), seed)
        finally:
            cloud.close()


def phases(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Three phases in any weather; half of them on two machines, a third with a crash."""
    for seed in seeds:
        yield climb_through(folder / str(seed), seed)


CAMPAIGNS: dict[str, Callable[[list[int], Path], Iterator[dict[str, Any]]]] = {
    "ambiguous-creates": ambiguous_creates,
    "gad-toy": gad_toy,
    "phases": phases,
    "power-loss": power_loss,
    "real-saves": real_saves,
    "stream-chaos": stream_chaos,
    "stream-overhead": stream_overhead,
    "s3-weather": s3_weather,
    "trainer-resume": trainer_resume,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="sim.campaign")
    parser.add_argument("name", choices=sorted(CAMPAIGNS))
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    seeds = list(range(asked.seeds)) if asked.only is None else [asked.only]
    with tempfile.TemporaryDirectory() as folder:
        told = []
        for each in CAMPAIGNS[asked.name](seeds, Path(folder)):
            told.append(each)
            if each["violations"]:
                print(f"seed {each['seed']}: {each['violations']}", file=sys.stderr)
    violations = [each for each in told if each["violations"]]
    print(f"{len(told)} seeds, {len(violations)} with violations")
    if asked.only is None:
        _write(asked.name, told, violations)
    return 1 if violations else 0


def _write(name: str, told: list[dict[str, Any]], violations: list[dict[str, Any]]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    record = {
        "campaign": name,
        "commit": commit.stdout.strip(),
        "seeds": len(told),
        "violations": violations,
        "runs": told,
    }
    path = ROOT / "campaigns" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
