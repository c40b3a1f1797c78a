"""`gpujob gc`: what bills and no live run owns; with --yes it is ended, and that is proven."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from orchestrator.cli.home import emit, json_option, settings, tell
from orchestrator.core.marks import Marked
from orchestrator.errors import GpujobError, LedgerError, RunEnded
from orchestrator.flows.gc import Survey, end, survey
from orchestrator.ports import Provider
from orchestrator.settings import Settings
from orchestrator.views.gc import marked_record, marked_table
from orchestrator.wiring.clouds import usable_providers
from orchestrator.wiring.ledger import make_clock, open_ledger

STILL_BILLING = 8


@click.command()
@click.option("--yes", "-y", is_flag=True, help="End the orphans; without it they are listed.")
@click.option(
    "--wait", "wait_s", default=600.0, show_default=True, help="Seconds to wait for the proof."
)
@json_option
def command(yes: bool, wait_s: float, as_json: bool) -> None:
    """List instances that carry a mark of gpujob, and with --yes end those of this ledger that
    no live run owns.

    Marks of other ledgers are listed and left alone; what carries no mark is not even shown.
    Exit code 8 means that an orphan may still bill, 1 that a provider could not be listed.
    """
    config = settings()
    providers, unasked = usable_providers(config)
    for name, why in unasked.items():
        tell(f"{name} is not looked at: {why}")
    seen = _survey(config, providers)
    orphans = seen.of("orphan")
    shown = (*orphans, *seen.of("foreign"))
    if shown or as_json:
        text = marked_table(shown, make_clock().now())
        emit(as_json, text, (marked_record(each) for each in shown))
    for name, why in seen.unknown.items():
        tell(f"{name} is UNKNOWN, something may bill there: {why}")
    _care_for(orphans, providers, yes=yes, wait_s=wait_s)
    if seen.unknown:
        raise GpujobError(
            f"{', '.join(seen.unknown)} could not be listed", hint="`gpujob doctor` says why"
        )


def _survey(config: Settings, providers: Mapping[str, Provider]) -> Survey:
    try:
        return survey(providers, lambda: open_ledger(config))
    except LedgerError as error:
        raise LedgerError(
            f"{error.message}; whose instances they are is not known, and nothing was ended",
            hint=error.hint,
        ) from error


def _care_for(
    orphans: tuple[Marked, ...], providers: Mapping[str, Provider], *, yes: bool, wait_s: float
) -> None:
    if not orphans:
        tell("no orphan is listed; nothing was ended")
        return
    if not yes:
        tell(f"hint: `gpujob gc --yes` ends {_names(orphans)}")
        return
    try:
        left = end(orphans, providers, make_clock(), wait_s=wait_s)
    except KeyboardInterrupt:
        tell(f"interrupted; may still bill: {_names(orphans)}")
        raise click.exceptions.Exit(130) from None
    gone = [each for each in orphans if each not in left]
    if gone:
        tell(f"gone, proven by the list of its provider: {_names(gone)}")
    if left:
        raise RunEnded(
            "; ".join(f"{each.name} may still bill: {why}" for each, why in left.items()),
            STILL_BILLING,
            hint="run `gpujob gc --yes` again, or end them in the provider's console",
        )


def _names(marked: Iterable[Marked]) -> str:
    return ", ".join(each.name for each in marked)
