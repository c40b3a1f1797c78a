"""How long it takes to choose among 2,048 offers, beside Python's own sort of them: the median of
20, in one run. `python benchmarks/planning.py`"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.tree import LocalTrees
from orchestrator.core.gpus import fits
from orchestrator.core.offer import Need, Offer
from orchestrator.core.spec import load_job
from orchestrator.flows.launch import make_plan
from orchestrator.flows.phase_plan import Shop
from orchestrator.ports import Provider

TIMES = 20
GPUS = ("A100-80GB-SXM", "A100-80GB-PCIe", "H100-SXM", "H200", "L40S", "RTX4090", "A40", "B200")
JOB = """
name: bench
resources: {providers: [runpod, thunder], gpu: [A100-80GB:4, H100:4, L40S:8]}
budget: {usd_per_hour: 40}
run: "true"
checkpoints: {path: out}
"""


class Catalogue:
    """A provider with offers and nothing else: planning asks for no more."""

    def __init__(self, name: str, offers: Sequence[Offer]) -> None:
        self.name = name
        self._offers = offers

    def offers(self, need: Need) -> list[Offer]:
        return [
            offer
            for offer in self._offers
            if any(fits(gpu, offer.gpu) and offer.count == count for gpu, count in need.gpus)
        ]


def synthetic(provider: str, count: int) -> list[Offer]:
    chance = random.Random(provider)
    return [
        Offer(
            provider=provider,
            id=f"{provider}-{number}",
            gpu=chance.choice(GPUS),
            count=chance.choice((1, 2, 4, 8)),
            vcpus=16,
            ram_gb=128,
            disk_gb=500,
            usd_per_hour=round(chance.uniform(0.3, 40.0), 2),
            region=f"DC-{number % 24}",
            stock=chance.choice(("HIGH", "MEDIUM", "LOW", "NONE")),
        )
        for number in range(count)
    ]


def main() -> None:
    offers = [*synthetic("runpod", 1536), *synthetic("thunder", 512)]
    by_name: dict[str, Catalogue] = {
        name: Catalogue(name, [each for each in offers if each.provider == name])
        for name in ("runpod", "thunder")
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(JOB)
        job = load_job(path, ())
        providers: Mapping[str, Provider] = by_name  # type: ignore[assignment]
        shop = Shop(LocalTrees(Path(folder) / "hashes"), providers, lambda _: None, lambda *_: None)
        measures: dict[str, Callable[[], object]] = {
            "sorted() by price alone": lambda: sorted(offers, key=lambda each: each.usd_per_hour),
            "the whole plan": lambda: make_plan(job, shop),
        }
        for name, measure in measures.items():
            print(f"{name:<28} {median_s(measure) * 1000:8.2f} ms  ({len(offers)} offers)")


def median_s(measure: Callable[[], object]) -> float:
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        measure()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    main()
