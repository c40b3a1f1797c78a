"""The simulated world with an emulated cloud as its provider: the real adapter speaks HTTP to it,
the account is the oracle, and one clock drives both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kit.clock import ManualClock
from kit.cloud import Cloud

from orchestrator.adapters.http import Api, Rate
from orchestrator.adapters.runpod import RunPodProvider
from orchestrator.adapters.thunder import ThunderProvider
from orchestrator.core.offer import Need, Offer
from orchestrator.errors import Unreachable
from orchestrator.ports import CreateRequest, Provider
from sim.world import Box, World

START = "2026-01-01T00:00:00Z"
NEEDS: Mapping[str, Need] = {
    "runpod": Need(gpus=(("A40", 1),), disk_gb=20),
    "thunder": Need(gpus=(("A6000", 1), ("L40", 1)), disk_gb=20),
}
MAKERS: Mapping[str, Callable[..., Provider]] = {
    "runpod": RunPodProvider,
    "thunder": ThunderProvider,
}


class SharedClock(ManualClock):
    """Moves the cloud's clock with its own."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self._cloud = cloud

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._cloud.advance(seconds)


class CloudWorld(World):
    """Boxes are what the account holds; behind each is a simulated agent and trainer."""

    def __init__(self, cloud: Cloud, clock: ManualClock, seed: int = 0) -> None:
        super().__init__(seed)
        self.cloud = cloud
        self.clock = clock
        self._seen: tuple[float, list[dict[str, Any]]] = (-1.0, [])

    def living(self) -> list[Box]:
        return [self._known(each) for each in self.cloud.instances() if each["mark"]]

    def instances(self) -> list[dict[str, Any]]:
        """The account's, asked once for each moment of the clock."""
        if self._seen[0] != self.now_s:
            self._seen = (self.now_s, self.cloud.instances())
        return self._seen[1]

    def box(self, address: tuple[str, int]) -> Box:
        _, port = address
        for each in self.instances():
            if each["port"] == port:
                box = self._known(each)
                box.train(self.now_s, self.faults.crash_at_step)
                return box
        raise Unreachable(f"{address} does not answer")

    def _known(self, told: Mapping[str, Any]) -> Box:
        name = told["id"]
        if name not in self.boxes:
            offer = Offer("cloud", name, "cpu", 1, 1, 1, 1, 0.0)
            request = CreateRequest(name, told["mark"], offer, "", 1)
            self.boxes[name] = Box(request, name, self.now_s)
        return self.boxes[name]


def provider_of(cloud: Cloud, clock: ManualClock, *, timeout_s: float = 0.5) -> Provider:
    """The real adapter, as it is wired, but for its patience with one request."""
    rate = Rate(clock)
    api = Api(
        cloud.url, token=lambda: cloud.key, user_agent="gpujob/sim", rate=rate, timeout_s=timeout_s
    )
    return MAKERS[cloud.kind](api, clock)


def offers_of(provider: Provider) -> tuple[Offer, ...]:
    offers = provider.offers(NEEDS[provider.name])
    return tuple(sorted(offers, key=lambda each: (each.usd_per_hour, each.id)))[:6]


__all__ = ["CloudWorld", "SharedClock", "offers_of", "provider_of"]
