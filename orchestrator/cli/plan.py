"""`gpujob plan`: the plan alone. Nothing is rented, kept or asked."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.home import settings
from orchestrator.core.plan import Plan
from orchestrator.core.spec import load_job
from orchestrator.flows.launch import make_plan
from orchestrator.flows.phase_plan import Shop
from orchestrator.views.plan import plan_json, plan_text
from orchestrator.wiring.ledger import make_clock
from orchestrator.wiring.worlds import make_shop


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what the job in FILE would do and cost.

    Without a network or a key it plans with the prices of last time and says how old they are.
    """
    shop = make_shop(settings(), offline=True)
    plan = make_plan(load_job(file, overrides), shop)
    click.echo(plan_json(plan) if as_json else told_plan(plan, shop))


def told_plan(plan: Plan, shop: Shop) -> str:
    """The plan in words, with what its providers can do."""
    names = {offer.provider for offer in plan.offers}
    able = {name for name in names if shop.providers[name].capabilities.self_stop}
    return plan_text(plan, make_clock().now(), able)
