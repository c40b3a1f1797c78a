"""What every verb begins with: the settings, the ledger, the run that is meant."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from orchestrator.core.codec import to_json
from orchestrator.core.run import Run
from orchestrator.errors import Ambiguous, NotFound
from orchestrator.ports import Ledger
from orchestrator.settings import Settings, load_settings

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings() -> Settings:
    return load_settings()


def choose_run(ledger: Ledger, wanted: str | None) -> Run:
    """The run named, or this folder's newest, or the only one.

    Raises NotFound, or Ambiguous with the candidates."""
    if wanted:
        return _named(ledger, wanted)
    runs = ledger.runs()
    here = _of_this_folder(runs)
    if here or len(runs) == 1:
        return (here or runs)[0]
    if not runs:
        raise NotFound("there is no run yet", hint="`gpujob launch JOB.yaml` starts one")
    raise Ambiguous(
        "no run was launched from this folder; say which is meant: "
        + ", ".join(run.id for run in runs[:5]),
        hint="give the run's name, or change to the folder of its job file",
    )


def choose_live_run(ledger: Ledger, wanted: str | None) -> Run:
    """As `choose_run`, for a verb that ends something: of several live runs one must be named."""
    if wanted is None:
        live = [run for run in _of_this_folder(ledger.runs()) if not run.terminal]
        if len(live) > 1:
            raise Ambiguous(
                f"{len(live)} runs of this folder are live: {', '.join(run.id for run in live)}",
                hint=f"say which, such as `gpujob teardown {live[0].id}`; nothing was ended",
            )
    return choose_run(ledger, wanted)


def choose_waiting_run(ledger: Ledger, wanted: str | None) -> Run:
    """As `choose_run`, for an answer: of this folder's runs the one that waits for a person."""
    if wanted is None:
        waiting = [run for run in _of_this_folder(ledger.runs()) if run.is_asking]
        if len(waiting) > 1:
            raise Ambiguous(
                f"{len(waiting)} runs of this folder wait for a person: "
                + ", ".join(run.id for run in waiting),
                hint=f"say which, such as `gpujob approve {waiting[0].id}`; nothing was answered",
            )
        if waiting:
            return waiting[0]
    return choose_run(ledger, wanted)


def emit(as_json: bool, text: str, records: Iterable[Any]) -> None:
    """Data to stdout: the text, or one JSON object a line."""
    if not as_json:
        click.echo(text)
        return
    for record in records:
        click.echo(json.dumps(to_json(record), sort_keys=True))


def tell(words: str) -> None:
    """Words to stderr, where no pipe mistakes them for data."""
    click.echo(words, err=True)


def _of_this_folder(runs: list[Run]) -> list[Run]:
    return [run for run in runs if Path(run.folder) in (Path.cwd(), *Path.cwd().parents)]


def is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _named(ledger: Ledger, wanted: str) -> Run:
    runs = ledger.runs()
    exact = [run for run in runs if run.id == wanted]
    if exact:
        return exact[0]
    found = [run for run in runs if run.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Ambiguous(f"{wanted} may mean {', '.join(run.id for run in found[:5])}")
    raise NotFound(f"there is no run {wanted}", hint="`gpujob ps` lists the runs")
