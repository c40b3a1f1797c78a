"""`python -m remote.standin LAUNCHER WORD…`: stands in for a trainer that this machine cannot run.

`spec.json` beside the package says what a rehearsal wants, the command and its files the rest."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

from remote.standin import evaluation, layouts, words

_TRAINER = re.compile(r"train|tune|sft|dpo|simpo|ppo|grpo|gad|verl|pretrain|distill", re.IGNORECASE)
_BESIDE = re.compile(r"eval|prepare|merge|convert|valid|generate|download", re.IGNORECASE)
_STEP = re.compile(r"(\d{1,15})(?!.*\d)")
LAUNCHERS = ("deepspeed", "torchrun", "accelerate")


def main() -> int:
    launcher, rest = sys.argv[1], sys.argv[2:]
    spec = json.loads((Path(__file__).parents[2] / "spec.json").read_text(encoding="utf-8"))
    script = next((word for word in rest if not word.startswith("-") or word == "-m"), "")
    if launcher not in LAUNCHERS and (script in ("", "-") or _is_tool(rest, spec)):
        _really(rest)
    absent = words.missing_file(rest)
    if absent and absent.split("/")[0] not in spec["setup"]:
        print(f"FileNotFoundError: [Errno 2] No such file or directory: '{absent}'", flush=True)
        return 1
    if launcher not in LAUNCHERS and _is_help(rest):
        return _help(spec, rest)
    return Trainer(spec, words.read(rest), rest).train()


def _is_tool(rest: Sequence[str], spec: Dict[str, Any]) -> bool:
    """`python -c`, `python -m pip` and the like, and scripts of the user's that can run here."""
    module = rest[1] if rest[:1] == ["-m"] and len(rest) > 1 else ""
    is_known = module.split(".")[0] in ("pip", "venv", "json", "zipfile")
    return "-c" in rest[:1] or is_known or os.path.normpath(rest[0]) in spec["real"]


def _really(rest: Sequence[str]) -> None:
    """With the environment as the user's command had it."""
    os.environ["PYTHONPATH"] = os.environ.pop("GPUJOB_USERS_PYTHONPATH", "")
    os.environ.pop("PYTHONSAFEPATH", None)
    os.execv(sys.executable, [sys.executable, *rest])


def _is_help(rest: Sequence[str]) -> bool:
    """A step beside the training, by what its script, module or subcommand is called."""
    said = " ".join(word.rsplit("/", 1)[-1] for word in rest[:3])
    return bool(_BESIDE.search(said)) or not _TRAINER.search(said)


def _help(spec: Dict[str, Any], rest: Sequence[str]) -> int:
    """What it evaluates is written where the gate, or whoever reads it next, looks for it."""
    print(f"rehearsal: standing in for {' '.join(rest[:2])}", flush=True)
    settings = words.read(rest)
    if rest[:3] == ["-m", "remote.trainer", "evaluate"] and settings.get("output"):
        evaluation.write(Path(str(settings["output"])), settings)
        return 0
    for name in spec["evaluations"]:
        evaluation.plain(Path(name), spec["metric"])
    return 0


@dataclass
class Trainer:
    spec: Dict[str, Any]
    settings: Dict[str, Any]
    rest: Sequence[str]

    def train(self) -> int:
        root = Path(str(words.first(self.settings, words.OUTPUT) or self.spec["path"]))
        layout: str = self.spec["layout"]
        write = self._writer()
        most = min(self._number(words.STEPS) or self.spec["steps"], self.spec["steps"])
        every = min(self._number(words.EVERY) or self.spec["every"], self.spec["every"])
        begun = self._begin(root)
        before = int(os.environ.get("GPUJOB_START_STEP") or 0)
        if 0 < before <= begun:  # it counts on from the checkpoint that was handed over
            most = before + self.spec["steps"]
        kept: List[Path] = []
        history: List[Dict[str, Any]] = []
        print(f"***** Running training *****\n  Total optimization steps = {most}", flush=True)
        for step in range(begun + 1, most + 1):
            time.sleep(self.spec["step_s"])
            record = {"step": step, "loss": 2.5 * math.exp(-step / 40), "grad_norm": 1.0}
            history.append({**record, "learning_rate": 1e-5})
            print(self._line(step, most, record), flush=True)
            if step % every == 0 or step == most:
                save = layouts.Save(root, step, self.spec["world"], most, tuple(history))
                kept.append(write(save))
                limit = self._number(words.LIMIT)
                while limit and len(kept) > limit:
                    layouts.forget(kept.pop(0))
        layouts.final(layout, layouts.Save(root, most, self.spec["world"], most))
        for name in self.spec["evaluations"]:
            evaluation.plain(Path(name), self.spec["metric"])
        print("training done", flush=True)
        return 0

    def _writer(self) -> Callable[[layouts.Save], Path]:
        rule = self.spec.get("rule")
        return layouts.custom(rule) if rule else layouts.WRITERS[self.spec["layout"]]

    def _number(self, names: Sequence[str]) -> int | None:
        found = words.whole(words.first(self.settings, names))
        return found if found and found > 0 else None

    def _begin(self, root: Path) -> int:
        """The step of the checkpoint that it is told to go on from: by name, or where it looks."""
        told = next((path for path in self._told() if path.exists()), None)
        if told is None and self.spec["layout"] in ("verl", "open-instruct"):
            told = _newest(root)
        step = _STEP.search(told.name) if told else None
        if told is None or step is None:
            return 0
        print(f"Resumed from checkpoint: {told}", flush=True)
        return int(step[1])

    def _told(self) -> Iterator[Path]:
        for name in self.spec["resume_env"]:
            yield Path(os.environ.get(name) or "missing")
        for name in words.RESUME:
            value = str(self.settings.get(name) or "")
            if value and value.lower() not in ("true", "auto", "latest", "false", "none"):
                yield Path(value)
        for _, value in words.pairs(self.rest):
            if value.startswith(self.spec["path"].rstrip("/") + "/"):
                yield Path(value)

    def _line(self, step: int, most: int, record: Dict[str, Any]) -> str:
        loss, layout = record["loss"], self.spec["layout"]
        if layout == "open-instruct":
            return f"Step: {step}, LR: 1e-05, Loss: {loss:.4f}, TPS: 1000.0"
        if layout == "verl":
            return f"step:{step} - actor/teacher_pg_loss:{loss:.4f} - actor/grad_norm:1.0"
        if layout == "torchllms":
            return f"[global step {step}/{most}] loss={loss:.4f} grad_norm=1.0 lr=1e-05"
        bar = f"{100 * step // most:3d}%|# | {step}/{most} [00:00<00:01, 4.9it/s]"
        if layout == "huggingface":
            return f"{{'loss': '{loss:.4g}', 'grad_norm': '1', 'learning_rate': '1e-05'}}\n{bar}"
        return f"Step {step} loss: {loss:.4f} grad_norm: 1.0"


def _newest(root: Path) -> Path | None:
    found = [path for path in root.glob("*step_*") if path.is_dir() and _STEP.search(path.name)]
    return max(found, key=lambda path: int(_STEP.search(path.name)[1]), default=None)  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
