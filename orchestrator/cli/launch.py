"""`gpujob launch`: plan, ask, put on record, hand to the daemon, follow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from orchestrator.cli.background import ensure_daemon
from orchestrator.cli.follow import detach_words, finish, follow
from orchestrator.cli.home import is_interactive, settings, tell
from orchestrator.cli.plan import told_plan
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.core.spec import load_job
from orchestrator.daemon import run_alone, stop_on_signals
from orchestrator.errors import BadJobFile
from orchestrator.flows.launch import SECRETS, make_plan, record, secret_values
from orchestrator.ports import Ledger
from orchestrator.settings import Settings
from orchestrator.views.plan import plan_json
from orchestrator.wiring.clouds import keep_credentials, other_addresses
from orchestrator.wiring.homes import check_store, store_keys
from orchestrator.wiring.ledger import open_ledger
from orchestrator.wiring.worlds import make_shop, make_world


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the plan; create nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--detach", is_flag=True, help="Return once the daemon has the run.")
@click.option("--foreground", is_flag=True, help="Run in this process instead of the daemon.")
@click.option("--phase", "begin", default="", metavar="NAME", help="Begin at this phase.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
def command(
    file: Path,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    detach: bool,
    foreground: bool,
    begin: str,
    overrides: tuple[str, ...],
) -> None:
    """Plan the job in FILE, show what it costs, and run it.

    The plan that --dry-run prints is the plan that is executed. With --phase, the gates of the
    phases before have to be passed by an earlier run of the job, with what the file, code, data
    and image are now; what that phase starts from comes from such a run.
    """
    config = settings()
    job = load_job(file, overrides)
    shop = make_shop(config)
    plan = make_plan(job, shop, begin=begin, earlier=_earlier(config) if begin else ())
    values = secret_values(plan, os.environ, job.base / ".env")
    private = {SECRETS: values, **store_keys(config, plan)}
    click.echo(plan_json(plan) if as_json else told_plan(plan, shop))
    for name, url in other_addresses(config, {offer.provider for offer in plan.offers}).items():
        tell(f"note: {name} is asked at {url}")
    if dry_run:
        return
    _confirm(yes)
    _try_store(config, plan)
    ledger = open_ledger(config)
    keep_credentials(config, *_who_rents(plan, ledger))
    run_id, plan = record(plan, private, ledger=ledger, shop=shop, state=config.state)
    click.echo(f"\nlaunched {run_id}")
    _see_to(config, ledger, run_id, detach=detach, foreground=foreground)


def _see_to(
    config: Settings, ledger: Ledger, run_id: str, *, detach: bool, foreground: bool
) -> None:
    """Run it here, or have the daemon run it."""
    if foreground:
        run_alone(make_world(config), run_id, stop_on_signals())
    if foreground and ledger.run(run_id).terminal:
        finish(ledger.run(run_id))
        return
    ensure_daemon(config)
    if detach:
        click.echo(f"hint: `gpujob watch {run_id}` shows it, `gpujob teardown {run_id}` ends it")
        return
    _follow(config, ledger, run_id, away=foreground)


def _follow(config: Settings, ledger: Ledger, run_id: str, *, away: bool) -> None:
    """Until its end or a Ctrl-C; one that was interrupted (`away`) is left at once."""
    with suppress(KeyboardInterrupt):
        if not away:
            finish(follow(config, ledger, run_id, live=is_interactive()))
            return
    click.echo(detach_words(run_id), err=True)
    raise click.exceptions.Exit(130)


def _earlier(config: Settings) -> list[Run]:
    """What there was before, newest first; a plan alone makes no ledger."""
    return open_ledger(config).runs() if config.ledger.exists() else []


def _who_rents(plan: Plan, ledger: Ledger) -> tuple[set[str], set[str]]:
    """The providers that this plan may rent from, and those where live runs do."""
    live = [run for run in ledger.runs() if not run.terminal]
    renting = {each.provider for run in live for each in run.still_billing}
    return {offer.provider for offer in plan.offers}, renting


def _try_store(config: Settings, plan: Plan) -> None:
    """A bucket that will not take checkpoints is cheaper to hear of now than from a box; one that
    cannot be reached from here may be reached from there."""
    also = plan.phases[0].checkpoints.also
    for check in check_store(config, also.uri) if also else ():
        if check.state == "fail" and "cannot be reached" not in check.found:
            raise BadJobFile(
                f"checkpoints.also: {check.found}; nothing was rented", hint=check.advice
            )
        if check.state != "ok":
            tell(f"note: {check.what}: {check.found}")


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not is_interactive():
        raise BadJobFile("there is no terminal to ask on; nothing was rented", hint="pass --yes")
    click.confirm("\nlaunch this?", abort=True)
