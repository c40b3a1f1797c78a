"""What a rehearsal lays ready: small copies of the user's data, a tiny model, programs that stand
in for launchers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.core.spec import Job
from orchestrator.errors import Missing
from orchestrator.flows.rehearsal.rows import ROWS, made_up_rows

MOST_BYTES = 2**20
MOST_JSON = 2**29  # it is parsed whole
MOST_FILES = 2000
LINES = (".jsonl", ".csv", ".tsv", ".txt")
_LEFT = "gpujob-rehearsal-left: "
_PYTHONS = ("python", "python3")
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed")
_SHIM = """#!/bin/sh
here="$(dirname "$0")/.."
export GPUJOB_USERS_PYTHONPATH="$PYTHONPATH"
PYTHONSAFEPATH=1 PYTHONPATH="$here" exec "{python}" -m remote.standin {name} "$@"
"""
# The user's own trainer by its launcher's options. One that knows nothing of ranks is started once.
_LAUNCH = """#!{python}
import os, sys
alone = ("--use_deepspeed", "--standalone", "--multi_gpu", "--no_local_rank", "--cpu")
words = sys.argv[1:]
if words[:1] == ["launch"]:
    del words[0]
while words and words[0].startswith("-") and words[0] not in ("-m", "--module"):
    word = words.pop(0)
    if "=" not in word and word not in alone:
        words.pop(0)
if {knows_ranks}:
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "{ranks}", *words]
else:
    os.environ["WORLD_SIZE"] = "{ranks}"
    known = [os.getcwd(), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, known))
os.execv("{python}", ["{python}", *words])
"""
_LOOK = f"""import os
shown = 0
for folder, folders, files in os.walk("."):
    folders[:] = [each for each in folders if each not in ("gpujob_rehearsal", "_superseded")]
    for name in files:
        if shown < 4000:
            print({_LEFT!r} + os.path.relpath(os.path.join(folder, name)), flush=True)
        shown += 1
"""


@dataclass(frozen=True)
class Makers:
    """What a rehearsal makes with heavier hands: the first rows of a parquet file as another one,
    which are returned as text, and a tiny model from texts. Both raise Missing when a package is
    not here."""

    parquet: Callable[[Path, Path, int], str]
    model: Callable[[Path, Path], None]


class Props:
    """Everything below one folder, made as it is asked for."""

    def __init__(self, folder: Path, makers: Makers, standin: Path, python: str) -> None:
        self.folder = folder
        self.python = python
        self._makers = makers
        self._standin = standin
        self._texts: list[str] = []
        self._copies: dict[Path, Path] = {}
        self.left_out: list[str] = []
        self._unread: list[Path] = []

    def data(self, job: Job) -> dict[str, str]:
        """Each `from:` of the job that is here, and where its small copy lies."""
        found = {}
        for item in job.data:
            source = job.local(item.source)
            if source.exists():
                found[item.source] = str(self._copy(source.resolve()))
        return found

    def tools(
        self, name: str, spec: Mapping[str, Any], *, stand_in: bool, model: bool, rows: bool = False
    ) -> Path:
        """The folder that a phase finds as gpujob_rehearsal/."""
        folder = self.folder / "tools" / name
        folder.mkdir(parents=True, exist_ok=True)
        if rows:
            self._texts.append(made_up_rows())
            (folder / "rows.jsonl").write_text(made_up_rows())
        (folder / "look.py").write_text(_LOOK)
        (folder / "spec.json").write_text(json.dumps(spec))
        for launcher in _PYTHONS + _LAUNCHERS if stand_in else _LAUNCHERS:
            text = _SHIM if stand_in else _LAUNCH
            words = {"python": self.python, "name": launcher, "ranks": spec["world"]}
            made = text.format(**words, knows_ranks=spec["knows_ranks"])
            _executable(folder / "bin" / launcher, made)
        if stand_in:
            self._put_standin(folder / "remote")
        if model:
            shutil.copytree(self.model(), folder / "model", dirs_exist_ok=True)
        return folder

    def model(self) -> Path:
        """A tiny model with a tokenizer of the user's own words, made once."""
        folder = self.folder / "model"
        if not (folder / "config.json").exists():
            self._makers.model(folder, self._words())
        return folder

    def _put_standin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(self._standin, folder / "standin", dirs_exist_ok=True, ignore=ignore)

    def _copy(self, source: Path) -> Path:
        """Numbered, as two sources may have one name."""
        if source not in self._copies:
            dest = self.folder / "data" / str(len(self._copies)) / source.name
            dest.parent.mkdir(parents=True, exist_ok=True)
            self._copies[source] = dest
            self._copy_tree(source, dest)
        return self._copies[source]

    def _copy_tree(self, source: Path, dest: Path) -> None:
        if source.is_file():
            self._copy_file(source, dest)
            dest.touch()  # what is left out has a place: a file that is not there is refused
        elif is_model(source):
            self._makers.model(dest, self._words())
        else:
            dest.mkdir(exist_ok=True)
            for path in islice(sorted(source.rglob("*")), MOST_FILES):
                place = dest / path.relative_to(source)
                if path.is_file():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    self._copy_file(path, place)

    def _copy_file(self, source: Path, dest: Path) -> None:
        if source.suffix == ".parquet" and source.stat().st_size > MOST_BYTES:
            self._texts.append(self._makers.parquet(source, dest, ROWS))
        elif source.suffix in LINES:
            with source.open(encoding="utf-8", errors="replace") as file:
                text = "".join(islice((line[:MOST_BYTES] for line in file), ROWS + 1))
            dest.write_text(text, encoding="utf-8")
            self._texts.append(text)
        elif source.suffix == ".json" and MOST_BYTES < source.stat().st_size <= MOST_JSON:
            self._copy_json(source, dest)
        elif source.stat().st_size <= MOST_BYTES:
            shutil.copyfile(source, dest)
            if source.suffix == ".parquet":
                self._unread.append(source)
        else:
            self.left_out.append(source.name)

    def _copy_json(self, source: Path, dest: Path) -> None:
        tree = json.loads(source.read_text(encoding="utf-8", errors="replace"))
        few = tree[:ROWS] if isinstance(tree, list) else tree
        dest.write_text(json.dumps(few))
        self._texts.append(dest.read_text()[:MOST_BYTES])

    def _words(self) -> Path:
        """What the tokenizer learns its words from: the data so far."""
        for source in self._unread:
            with suppress(Missing):
                beside = self.folder / "unread.parquet"
                self._texts.append(self._makers.parquet(source, beside, ROWS))
        self._unread.clear()
        path = self.folder / "texts.txt"
        path.write_text("\n".join(self._texts) or "a few words to begin with\n" * 50)
        return path


def is_model(folder: Path) -> bool:
    """Whether this is a model's folder, which is not copied but made tiny."""
    config = folder / "config.json"
    if not config.is_file() or config.stat().st_size > MOST_BYTES:
        return False
    try:
        return "model_type" in json.loads(config.read_text())
    except (ValueError, RecursionError, TypeError):
        return False


def left_behind(log: bytes, uploaded: Sequence[str]) -> Iterator[str]:
    """The files that a command left in its work folder, but for those that were put there."""
    known = set(uploaded)
    for line in log.decode(errors="replace").splitlines():
        if line.startswith(_LEFT) and line[len(_LEFT) :] not in known:
            yield line[len(_LEFT) :]


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
