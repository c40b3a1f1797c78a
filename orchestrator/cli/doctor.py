"""`gpujob doctor`: what is missing on this machine or account, and what to do about it."""

from __future__ import annotations

import click

from orchestrator.cli.home import emit, json_option, settings
from orchestrator.errors import GpujobError
from orchestrator.views.checks import checks_text
from orchestrator.wiring.clouds import run_checks
from orchestrator.wiring.homes import check_store


@click.command()
@click.option("--s3", "place", metavar="S3://BUCKET/PREFIX", help="Try the keys for S3 there.")
@json_option
def command(place: str | None, as_json: bool) -> None:
    """Check this machine and the account of every provider that has a key.

    No key is ever printed. Exit code 1 when something fails that keeps jobs from running; a
    provider without a key is a warning.
    """
    config = settings()
    checks = [*run_checks(config), *(check_store(config, place) if place else ())]
    emit(as_json, checks_text(checks), checks)
    failed = [check.what for check in checks if check.state == "fail"]
    if failed:
        raise GpujobError(
            f"{', '.join(failed)}: see above", hint="mend it and run `gpujob doctor` again"
        )
