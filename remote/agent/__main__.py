"""The agent's commands. Each prints one JSON object, or speaks a protocol after the magic."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Callable, Dict, List, NoReturn

from remote.agent.dump import dump
from remote.agent.follow import follow
from remote.agent.heard import Ear, Heard
from remote.agent.paths import Root
from remote.agent.serve import serve
from remote.agent.start import StartError, start, stop
from remote.agent.supervise import supervise
from remote.agent.tmux import TmuxError
from remote.agent.trainer import run_trainer
from remote.contract import PROTOCOL, ContractError


def main() -> NoReturn:
    """Run the command of argv and exit. An error is `{"v":1,"error":…}` and 1."""
    sys.exit(_run(sys.argv[1:]))


def _run(words: List[str]) -> int:
    options = _parser().parse_args(words)
    root = Root.at(options.root)
    try:
        root.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        code: int = options.run(root, options)
        return code
    except (StartError, TmuxError, ContractError, OSError) as error:
        _say({"error": str(error)})
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agent.pyz", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "start", _start, instance=str, attempt=int)
    stopping = _command(commands, "stop", _stop, attempt=int)
    stopping.add_argument("--signal", choices=("TERM", "KILL"), required=True)
    following = _command(commands, "follow", _follow, events=int, log=int, metrics=int)
    following.add_argument("--sights", type=int, default=0)
    _command(commands, "dump", _dump, attempt=int)
    _command(commands, "serve", lambda root, _: serve(root, sys.stdin.buffer, sys.stdout.buffer))
    _command(commands, "supervise", _supervise, instance=str)
    _command(commands, "run-trainer", _run_trainer, attempt=int)
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int], **options: type
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name)
    parser.add_argument("--root", required=True)
    for option, kind in options.items():
        parser.add_argument("--" + option, type=kind, required=True)
    parser.set_defaults(run=run)
    return parser


def _start(root: Root, options: argparse.Namespace) -> int:
    _say(start(root, options.instance, options.attempt))
    return 0


def _stop(root: Root, options: argparse.Namespace) -> int:
    Heard(root).note()
    _say(stop(root, options.attempt, options.signal))
    return 0


def _dump(root: Root, options: argparse.Namespace) -> int:
    Heard(root).note()
    _say(dump(root, options.attempt))
    return 0


def _follow(root: Root, options: argparse.Namespace) -> int:
    names = ("events", "log", "metrics", "sights")
    offsets = {name: getattr(options, name) for name in names}
    return follow(root, sys.stdout.buffer, offsets, Ear(root, 0))


def _supervise(root: Root, options: argparse.Namespace) -> int:
    return supervise(root, options.instance)


def _run_trainer(root: Root, options: argparse.Namespace) -> int:
    return run_trainer(root, options.attempt)


def _say(record: Dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"v": PROTOCOL, **record}) + "\n")


if __name__ == "__main__":
    main()
