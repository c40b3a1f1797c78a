"""How fast a checkpoint comes home, beside scp, sftp, rsync, tar over ssh, rclone and paramiko:
the same files in the same run, over loopback and over an emulated link of 80 ms and 1 Gbit/s.

    python benchmarks/transfer.py            everything, an hour and a half
    python benchmarks/transfer.py --quick    seconds, to see that it works
    python benchmarks/transfer.py --link wan --tree one --tool gpujob --tool "rsync -a" -n 5
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from transfer_box import DIE_WITH_US, Box, Sealed, Served
from transfer_latency import latencies_s
from transfer_table import LINKS, Found, machine, page
from transfer_tools import TOOLS, Tool
from transfer_trees import QUICK_SCALE, TREES, write_tree
from transfer_trial import measure
from wan import raw
from wan.link import HERE, THERE, Link, why_not

INSIDE = "GPUJOB_BENCH_FOLDER"
LORA_BYTES = 400_000_000
# Everything runs in a process namespace, on a tmpfs that only it sees: when the first process in
# it ends, by whatever cause, the kernel ends the rest and the memory is free again.
NAMESPACE = (*DIE_WITH_US, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
MOUNT = 'mount -t tmpfs -o size=75% none "$0" && exec "$@"'


def main() -> int:
    options = _options()
    if os.geteuid() == 0 and INSIDE not in os.environ:
        return _again_inside()
    found = Found()
    with _folder() as folder, Box(folder) as box:
        for name in options.tree:
            sealed = box.seal(name, write_tree(folder / name, name, scale=options.scale))
            found.seal_s[name] = sealed.seal_s
            for link in options.link:
                Comparison(box, sealed, folder=folder, found=found).run(link, options)
            box.forget(sealed)
    if options.saves:
        found.latency_s = _latencies(options)
    if options.json:
        told = {**asdict(found), "machine": machine(found)}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    print(page(found))
    return 0


class Comparison:
    """All tools on one sealed tree."""

    def __init__(self, box: Box, sealed: Sealed, *, folder: Path, found: Found) -> None:
        self._box = box
        self._sealed = sealed
        self._folder = folder
        self._found = found

    def run(self, link: str, options: argparse.Namespace) -> None:
        """One tool after the other, `repeat` times: what else the machine does meanwhile falls
        on all of them."""
        reason = why_not() if link == "wan" else None
        if reason:
            self._found.note(f"The link of 80 ms was left out: {reason}.")
            return
        with ExitStack() as stack:
            wan = stack.enter_context(Link(self._folder)) if link == "wan" else None
            where, enter = (THERE, wan.enter(THERE)) if wan else ("127.0.0.1", [])
            served = stack.enter_context(self._box.serve(where, enter))
            bare = _bare(wan, size_bytes=self._sealed.size_bytes) if wan else {}
            for _ in range(options.repeat):
                for tool in options.tool:
                    self._try(tool, served, link=link, enter=wan.enter(HERE) if wan else [])
            if wan:
                self._found.wan[self._sealed.what] = {**bare, "counters": wan.close()}

    def _try(self, tool: Tool, served: Served, *, link: str, enter: list[str]) -> None:
        """A tool that fails is noted and does not end the rest; ours may not fail."""
        if not tool.is_here:
            self._found.note(f"{tool.name} is not installed here.")
            return
        try:
            trial = measure(tool, served, self._sealed, into=self._folder, link=link, enter=enter)
        except RuntimeError as error:
            if tool.is_ours:
                raise
            self._found.note(f"{tool.name}, {self._sealed.what} over {link}: {error}")
            return
        self._found.trials.append(trial)
        said = f"{link:<9}{trial.what:<8}{tool.name:<13}{trial.mb_s:7.1f} MB/s"
        print(f"{said}  load {trial.load:.1f}", file=sys.stderr, flush=True)


def _bare(link: Link, *, size_bytes: int) -> dict[str, float]:
    """What the link alone carries: bytes over bare TCP connections, nothing stored."""
    program = [sys.executable, raw.__file__]
    server = subprocess.Popen(
        [*link.enter(THERE), *program, "serve", THERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdin and server.stdout
        port = server.stdout.readline().strip()
        pull = [*program, "pull", THERE, port, str(size_bytes)]
        done = subprocess.run([*link.enter(HERE), *pull], capture_output=True, check=True)
        server.stdin.close()
    told = json.loads(done.stdout)
    same_mb_s = size_bytes / told["first_s"] / 1e6
    return {**told, "ceiling_mb_s": link.ceiling_mb_s, "same_bytes_mb_s": same_mb_s}


def _latencies(options: argparse.Namespace) -> list[float]:
    with tempfile.TemporaryDirectory(dir=os.environ.get(INSIDE)) as folder:
        return latencies_s(
            Path(folder) / "run",
            saves=options.saves,
            size_bytes=int(LORA_BYTES * options.scale),
            pause_s=0.1 if options.quick else 12.0,
        )


@contextmanager
def _folder() -> Iterator[Path]:
    """In memory, so that the protocol is measured and not the disk."""
    memory = Path("/dev/shm")
    where = os.environ.get(INSIDE) or (str(memory) if os.access(memory, os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


def _again_inside() -> int:
    """Run this program again in namespaces of its own; its exit code."""
    with tempfile.TemporaryDirectory(prefix="gpujob-bench-") as folder:
        inside = [*NAMESPACE, "sh", "-c", MOUNT, folder, sys.executable, *sys.argv]
        process = subprocess.Popen(inside, env={**os.environ, INSIDE: folder})
        try:
            return process.wait()
        except KeyboardInterrupt:  # it heard it too, and cleans up
            return process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small tree, once, loopback alone")
    parser.add_argument("--link", action="append", choices=LINKS)
    parser.add_argument("--tree", action="append", choices=TREES)
    parser.add_argument("--tool", action="append", choices=[tool.name for tool in TOOLS])
    parser.add_argument("-n", "--repeat", type=int)
    parser.add_argument("--saves", type=int, help="of a LoRA, through agent and daemon; 0: none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="each run's figures, besides")
    options = parser.parse_args()
    quick = options.quick
    usual = [name for name, tree in TREES.items() if tree.usual]
    options.link = options.link or (["loopback"] if quick else list(LINKS))
    options.tree = options.tree or (["shards"] if quick else usual)
    options.tool = [tool for tool in TOOLS if _is_asked(tool, options.tool, quick=quick)]
    options.repeat = options.repeat or (1 if quick else 5)
    options.saves = options.saves if options.saves is not None else (1 if quick else 5)
    options.scale = QUICK_SCALE if quick else 1.0
    return options


def _is_asked(tool: Tool, names: list[str] | None, *, quick: bool) -> bool:
    if names is None:
        return not quick or tool.needs != "rclone"  # a shell and a hash command for each file
    return tool.name in names


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
