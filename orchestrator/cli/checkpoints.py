"""`gpujob checkpoints`: each one, and where it is; `checkpoints verify` in `verify.py`."""

from __future__ import annotations

import click

from orchestrator.cli.home import choose_run, emit, json_option, settings
from orchestrator.cli.lazy import LazyGroup
from orchestrator.views.runs import checkpoint_record, checkpoints_table
from orchestrator.wiring.ledger import open_ledger

VERIFY = {"verify": "Hash every published checkpoint again."}


class _Checkpoints(LazyGroup):
    """`checkpoints [RUN]` lists; `checkpoints verify [RUN]` is a verb of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(
            ctx, args if args[:1] in (["verify"], ["--help"]) else ["list", *args]
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _list if cmd_name == "list" else super().get_command(ctx, cmd_name)


@click.group(cls=_Checkpoints, verbs=VERIFY, aliases={}, subcommand_metavar="[RUN] | verify [RUN]")
def command() -> None:
    """List the checkpoints of RUN (default: this folder's newest): step, size, metric, and where
    each one is. `--json` prints one object a line."""


@click.command("list")
@click.argument("run", required=False)
@json_option
def _list(run: str | None, as_json: bool) -> None:
    """List the checkpoints of RUN (default: this folder's newest) and where each one is."""
    found = choose_run(open_ledger(settings()), run)
    records = (checkpoint_record(found, seal) for seal in found.seals)
    emit(as_json, checkpoints_table(found), records)
