"""`gpujob schema`: the JSON Schema of the job file."""

from __future__ import annotations

import json

import click

from orchestrator.core.spec import job_schema


@click.command()
def command() -> None:
    """Print the JSON Schema of the job file, for an editor or a check."""
    click.echo(json.dumps(job_schema(), indent=2))
