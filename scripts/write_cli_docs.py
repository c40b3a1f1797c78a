"""Writes docs/cli.md from the command line itself; with --check only says whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli import VERBS, cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Written by `make docs` from `--help`; do not edit.

Exit codes: 0 done, 1 error, 2 usage, bad job file or unset secret, 3 no capacity, 4 budget,
7 integrity, 8 still billing, 9 not found, 130 interrupted. Data goes to stdout, words to stderr;
`--json` prints one object a line. Without a terminal nothing asks.
"""


def main() -> int:
    text = render()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
        return 0
    if PAGE.read_text() == text:
        return 0
    sys.stderr.write("docs/cli.md is not what --help says; run `make docs`\n")
    return 1


def render() -> str:
    parent = click.Context(cli, info_name="gpujob", terminal_width=96, max_content_width=96)
    parts = [HEAD, _block(cli, parent)]
    for verb in VERBS:
        command = cli.get_command(parent, verb)
        assert command is not None
        context = click.Context(
            command, info_name=verb, parent=parent, terminal_width=96, max_content_width=96
        )
        parts += [f"\n## gpujob {verb}\n", _block(command, context)]
        parts += _verbs_below(command, context)
    return "\n".join(parts)


def _verbs_below(command: click.Command, parent: click.Context) -> list[str]:
    """The blocks of a verb's own verbs, such as `checkpoints verify`."""
    if not isinstance(command, click.Group):
        return []
    parts = []
    for verb in command.list_commands(parent):
        below = command.get_command(parent, verb)
        assert below is not None
        context = click.Context(below, info_name=verb, parent=parent)
        context.terminal_width = context.max_content_width = 96
        parts.append(_block(below, context))
    return parts


def _block(command: click.Command, context: click.Context) -> str:
    return f"```\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
