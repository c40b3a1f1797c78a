"""`gpujob offers`: what there is to rent, where, and for how much."""

from __future__ import annotations

from collections.abc import Mapping

import click

from orchestrator.cli.home import emit, json_option, settings, tell
from orchestrator.core.gpus import fits, suggest
from orchestrator.core.offer import ANY_GPU, Need
from orchestrator.core.spec.gpu import parse_gpu
from orchestrator.errors import GpujobError, NoCapacity
from orchestrator.flows.offers import gather
from orchestrator.ports import Provider
from orchestrator.views.offers import offer_record, offers_table
from orchestrator.wiring.clouds import PROVIDERS, usable_providers
from orchestrator.wiring.ledger import make_clock

COUNTS = (1, 2, 4, 8)
EVERYTHING = (("cpu", 1), *((ANY_GPU, count) for count in COUNTS))
LEAST_DISK_GB = 1


@click.command()
@click.argument("gpus", nargs=-1, metavar="[GPU[:COUNT]]...")
@click.option(
    "--provider", "names", multiple=True, type=click.Choice(PROVIDERS), help="Ask only this one."
)
@click.option("--region", default="", help="Only here, in the provider's own word.")
@click.option("--cloud", type=click.Choice(["secure", "community"]), help="Only this.")
@click.option("--max-usd-per-hour", type=float, help="Nothing dearer.")
@json_option
def command(
    gpus: tuple[str, ...],
    names: tuple[str, ...],
    region: str,
    cloud: str | None,
    max_usd_per_hour: float | None,
    as_json: bool,
) -> None:
    """List what every provider with a key rents out, cheapest first.

    \b
    gpujob offers                    all there is
    gpujob offers A100-80GB:4 H100   these
    A provider that cannot be reached is shown with the prices of last time, and their age.
    """
    need = Need(_wanted(gpus), LEAST_DISK_GB, region=region, cloud=cloud or "")
    providers, unasked = usable_providers(settings(), names)
    for name, why in unasked.items():
        tell(f"{name} is not asked: {why}")
    offers, troubles = gather(providers, need)
    for name, why in troubles.items():
        tell(f"{name} told nothing: {why}")
    shown = [
        each for each in offers if max_usd_per_hour is None or each.usd_per_hour <= max_usd_per_hour
    ]
    silent = ", ".join({**unasked, **troubles})
    if len(troubles) == len(providers):
        raise GpujobError(f"{silent} told nothing", hint="`gpujob doctor` says what to do")
    if not shown:
        words = f"{len(offers)} offers cost more" if offers else "no offer fits"
        raise NoCapacity(
            f"{words}; {silent} told nothing" if silent else words,
            hint=f"{_meant(need, providers)}`gpujob offers` without a word lists all there is",
        )
    now = make_clock().now()
    emit(as_json, offers_table(shown, now), (offer_record(offer, now) for offer in shown))


def _wanted(gpus: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """The alternatives; a GPU without a count is every count of it."""
    if not gpus:
        return EVERYTHING
    return tuple(each for text in gpus for each in _counted(text))


def _counted(text: str) -> tuple[tuple[str, int], ...]:
    try:
        need = parse_gpu(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    counts = (need.count,) if ":" in text or need.is_cpu else COUNTS
    return tuple((need.name, count) for count in counts)


def _meant(need: Need, providers: Mapping[str, Provider]) -> str:
    """GPUs with names like those that were asked for."""
    known = {offer.gpu for offer in gather(providers, Need(EVERYTHING, LEAST_DISK_GB))[0]}
    strange = [name for name in dict(need.gpus) if not any(fits(name, each) for each in known)]
    close = [each for name in strange for each in suggest(name, known)]
    return f"did you mean {' or '.join(close)}? " if close else ""
