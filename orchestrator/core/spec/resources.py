"""`resources` and `budget`: what to rent and what it may cost."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from orchestrator.core.spec.gpu import GpuNeed, check_gpu, parse_gpu
from orchestrator.core.spec.model import Amount, Model, Text, Whole, one_or_many

ProviderName = Literal["local", "runpod", "thunder"]


def _check_cuda(text: str) -> str:
    if not re.fullmatch(r"\d{1,2}\.\d{1,2}", text):
        raise ValueError("write the CUDA version as major.minor, such as 12.4")
    return text


def _check_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names one thing twice")
    return values


class Volume(Model):
    """A disk that outlives the instance: an existing one by `id`, or a new one of `size_gb`."""

    id: Text | None = None
    """An existing volume."""
    size_gb: Whole | None = None
    """A new volume of this many GB."""
    path: Annotated[str, Field(pattern=r"^/")] = "/workspace"
    """Where it is mounted on the box."""


class Resources(Model):
    """The machine that a run needs."""

    providers: Annotated[
        tuple[ProviderName, ...],
        one_or_many(ProviderName),
        AfterValidator(_check_distinct),
        Field(min_length=1),
    ] = ("local",)
    """Where to look for offers."""
    order: Literal["cheapest", "listed"] = "cheapest"
    """Which fitting offer is taken first: the cheapest, or in the order written here."""
    gpu: Annotated[
        tuple[Annotated[str, AfterValidator(check_gpu)], ...],
        one_or_many(str),
        Field(min_length=1),
    ] = ("cpu:1",)
    """Alternatives as type:count, such as A100-80GB:4; `cpu:2` on local is two ranks, no GPU."""
    nodes: Whole = 1
    """Instances that train together."""
    disk_gb: Whole | None = None
    """Disk that the box must have, in GB."""
    image: Text = "auto"
    """Container image; auto is the provider's default (local: the controller's own venv)."""
    region: Text | None = None
    """Rent only here, in the provider's own words."""
    cloud: Literal["secure", "community"] | None = None
    """RunPod's two clouds."""
    min_cuda: Annotated[str, AfterValidator(_check_cuda)] | None = None
    """Lowest CUDA version that the host's driver supports."""
    vcpus: Whole | None = None
    """Virtual CPUs that the box must have."""
    ram_gb: Whole | None = None
    """Memory that the box must have, in GB."""
    volume: Volume | None = None
    """A disk that outlives the instance."""
    ports: tuple[Annotated[int, Field(strict=True, ge=1, le=65535)], ...] = ()
    """Ports of the box that are opened to the internet."""

    @property
    def needs(self) -> tuple[GpuNeed, ...]:
        """The alternatives of `gpu`, parsed."""
        return tuple(parse_gpu(text) for text in self.gpu)


class Budget(Model):
    """Ceilings of the whole run, every instance counted; none is set by default."""

    usd: Amount | None = None
    """Dollars; the run drains before it passes them."""
    usd_per_hour: Amount | None = None
    """Offers dearer than this are not taken."""
    hours: Amount | None = None
    """Hours from the first instance to the end."""
