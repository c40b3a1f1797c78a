"""A click group whose verbs are imported one at a time: `--help` imports none of them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """`verbs` maps a verb to its one-line help; module `orchestrator.cli.<verb>` has `command`."""

    def __init__(
        self, *args: Any, verbs: Mapping[str, str], aliases: Mapping[str, str], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = verbs
        self._aliases = aliases

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self._aliases.get(cmd_name, cmd_name)
        if verb not in self._verbs:
            return None
        command = importlib.import_module(f"orchestrator.cli.{verb}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], [*self._verbs, *self._aliases], n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `gpujob --help` lists the verbs"
            raise click.UsageError(f"there is no verb {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(self._verbs.items()))
