"""Training runs killed at any moment and resumed, beside the same run left alone.

Two ranks, every third time under torchrun, are SIGKILLed after a random step, once or twice, and
go on from the newest whole checkpoint: at the end every byte is the same. Or the number of ranks
changes: then the losses of the next 20 steps are, within 1e-4."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "e2e"))  # where the kit of the trainer's tests is

import trainer_kit as kit  # noqa: E402

EXACT = ("step", "loss", "grad_norm", "learning_rate", "tokens")
OWN_BYTES = {"trainer_state.json", kit.MARKER}  # times of day are in them
NEAR = 1e-4
AFTER = 20
FULL: dict[str, Any] = {"full": True}
LORA: dict[str, Any] = {"lora": {"r": 4, "alpha": 8, "dropout": 0.2}}
PAIRS = {"data": "pairs.jsonl"}
WARM_UP = {"rollouts": 3, "max_new_tokens": 8, "critic_warmup": 2}
ADVERSARIAL = {**WARM_UP, "critic_warmup": 1, "stage": "adversarial", "kl": 0.05}
METHODS: dict[str, dict[str, Any]] = {
    "sft-full": {"method": "sft", **FULL},
    "sft-lora": {"method": "sft", **LORA},
    "sft-packed": {"method": "sft", "packing": True, **FULL},
    "sft-bf16": {"method": "sft", **FULL, "args": {"bf16": True}},
    "dpo-full": {"method": "dpo", **PAIRS, **FULL},
    "dpo-lora": {"method": "dpo", **PAIRS, **LORA},
    "simpo-full": {"method": "simpo", **PAIRS, **FULL},
    "simpo-lora": {"method": "simpo", **PAIRS, **LORA},
    "gad-warmup-full": {"method": "gad", "data": "distill.jsonl", "gad": WARM_UP, **FULL},
    "gad-warmup-lora": {"method": "gad", "data": "distill.jsonl", "gad": WARM_UP, **LORA},
    "gad-adversarial-full": {"method": "gad", "data": "distill.jsonl", "gad": ADVERSARIAL, **FULL},
    "gad-adversarial-lora": {"method": "gad", "data": "distill.jsonl", "gad": ADVERSARIAL, **LORA},
}
STAGES = (0, 2, 3, None)
# Dropout is drawn by each rank: another number of them draws another one.
MOVED = ("sft-full", "dpo-full", "simpo-full", "sft-packed")
MOVES = ((2, 1), (1, 2))


@dataclass(frozen=True)
class Form:
    """What is trained and what shards it; None is torch alone."""

    method: str
    stage: int | None

    @property
    def name(self) -> str:
        return f"{self.method}-{'plain' if self.stage is None else f'zero{self.stage}'}"

    @property
    def gad(self) -> bool:
        return self.method.startswith("gad")

    @property
    def steps(self) -> int:
        return 8 if self.gad else 15


KILLED = [
    Form(method, STAGES[(turn + place) % len(STAGES)])
    for turn in range(len(STAGES))
    for place, method in enumerate(METHODS)
]
MOVING = [
    (Form(method, stage), ranks) for method in MOVED for ranks in MOVES for stage in (2, 3, 0)
]


def trainer_resume(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Three seeds of four are killed runs, the fourth changes its ranks; all forms in turn."""
    folder.mkdir(exist_ok=True)
    shop = _shop(folder)
    straight: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        turn, rest = divmod(seed, 4)
        began = time.monotonic()
        if rest == 3:
            told = _move(shop, seed, *MOVING[turn % len(MOVING)])
        else:
            told = _kill(shop, seed, KILLED[(3 * turn + rest) % len(KILLED)], straight)
        yield {"seed": seed, **told, "took_s": round(time.monotonic() - began, 1)}


def _kill(
    shop: Path, seed: int, form: Form, straight: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    chance = random.Random(seed)
    how: kit.How = kit.TORCHRUN if seed % 4 == 0 else 2
    train = _train(shop, form)
    if form.name not in straight:
        straight[form.name] = _run(shop, train, form.name, ranks=2)
    out = f"{form.name}-{seed}"
    times = chance.choice((1, 1, 2))
    kills = [_killed(shop, train, out, form, chance, how) for _ in range(times)]
    begun = _newest(shop / out)
    code = kit.run(shop, train, out, *_resume(out, begun), how=how)
    violations = [f"ended with {code}: {_tail(shop, out)}"] if code else []
    if not violations:
        violations = list(_differences(shop, form, out, straight[form.name]))
    shutil.rmtree(shop / out)
    return {
        "form": form.name,
        "torchrun": how == kit.TORCHRUN,
        "kills": kills,
        "resumed_at": begun,
        "violations": violations,
    }


def _killed(
    shop: Path, train: str, out: str, form: Form, chance: random.Random, how: kit.How
) -> dict[str, Any]:
    """Start, wait until a step not seen before is done, and a little; then kill every rank."""
    begun = _newest(shop / out)
    step = chance.randint(min(begun + 1, form.steps), form.steps)
    metrics = shop / f"{out}.jsonl"
    known = len(_records(metrics))
    with kit.started(shop, train, out, *_resume(out, begun), how=how) as process:
        while process.poll() is None and step not in _steps(metrics)[known:]:
            time.sleep(0.01)
        later = chance.choice((0.0, chance.uniform(0, 0.5)))
        time.sleep(later)
        early = process.poll() is None
    done = _steps(metrics)[known:]
    return {"after_step": max(done, default=begun), "later_s": round(later, 3), "alive": early}


def _move(shop: Path, seed: int, form: Form, ranks: tuple[int, int]) -> dict[str, Any]:
    chance = random.Random(seed)
    before, after = ranks
    at = chance.randrange(2, 6)
    args = {"save_steps": at, "max_steps": at + AFTER, "save_total_limit": AFTER}
    train = _train(shop, form, args, name=f"move-{seed}")
    out, again = f"move-{seed}-from", f"move-{seed}-to"
    lines = _run(shop, train, out, ranks=before)
    found = _run(shop, train, again, "--resume", f"{out}/checkpoint-{at}", ranks=after)
    pairs = list(zip(lines[at:], found, strict=True))
    worst = max(abs(one["loss"] - other["loss"]) for one, other in pairs)
    violations = [] if worst <= NEAR and len(pairs) == AFTER else [f"losses differ by {worst}"]
    if [one["tokens"] for one, _ in pairs] != [other["tokens"] for _, other in pairs]:
        violations.append("other rows")
    for name in (out, again):
        shutil.rmtree(shop / name)
    about = {"form": form.name, "ranks": ranks, "resumed_at": at, "steps": len(pairs)}
    return {**about, "loss_differs_by": worst, "violations": violations}


def _differences(shop: Path, form: Form, out: str, straight: list[dict[str, Any]]) -> Iterator[str]:
    ours = {line["step"]: line for line in _records(shop / f"{out}.jsonl")}  # the last of each
    if sorted(ours) != list(range(1, form.steps + 1)):
        yield f"steps {sorted(ours)}"
        return
    for one, other in ((one, ours[one["step"]]) for one in straight):
        for key in EXACT:
            if one[key] != other[key]:
                yield f"{key} of step {one['step']} is {other[key]} and was {one[key]}"
    whole, again = (shop / name / f"checkpoint-{form.steps}" for name in (form.name, out))
    paths = {str(entry["path"]) for entry in kit.listed(whole)}
    if paths != {str(entry["path"]) for entry in kit.listed(again)}:
        yield "other files"
    elif not {"rng_state_0.pth", "rng_state_1.pth", "scheduler.pt"} <= paths:
        yield f"too few files: {sorted(paths)}"
    for path in sorted(paths - OWN_BYTES):
        if (
            not (again / path).exists()
            or (whole / path).read_bytes() != (again / path).read_bytes()
        ):
            yield f"{path} has other bytes"
    states = [json.loads((each / "trainer_state.json").read_text()) for each in (whole, again)]
    if states[0]["gpujob"] != states[1]["gpujob"]:
        yield "another trainer_state.json"


def _train(
    shop: Path, form: Form, args: dict[str, Any] | None = None, *, name: str | None = None
) -> str:
    changes = dict(METHODS[form.method])
    if changes.get("gad", {}).get("stage") == "adversarial":
        first = Form(form.method.replace("adversarial", "warmup"), form.stage)
        if not (shop / first.name).exists():
            _run(shop, _train(shop, first), first.name, ranks=2)
        changes["gad"] = {**changes["gad"], "warmup_from": first.name}
    own = {
        "global_batch_size": 8 if not form.gad else 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.002,
        "max_steps": form.steps,
        "save_steps": 3 if not form.gad else 2,
        "save_total_limit": 2,
        "weight_decay": 0.1,
        "warmup_steps": 3,
        **changes.pop("args", {}),
        **(args or {}),
    }
    return kit.settings(shop, f"{name or form.name}-train", stage=form.stage, args=own, **changes)


def _run(shop: Path, train: str, out: str, *words: str, ranks: int) -> list[dict[str, Any]]:
    (shop / f"{out}.jsonl").unlink(missing_ok=True)
    if kit.run(shop, train, out, *words, how=ranks) != 0:
        raise RuntimeError(f"{out}: {_tail(shop, out)}")
    return kit.metrics(shop, out)


def _newest(folder: Path) -> int:
    """The step of the newest checkpoint that its marker calls whole; 0 for none."""
    found = (path.parent.name for path in folder.glob(f"checkpoint-*/{kit.MARKER}"))
    return max((int(name.rpartition("-")[2]) for name in found), default=0)


def _resume(out: str, step: int) -> tuple[str, ...]:
    return ("--resume", f"{out}/checkpoint-{step}") if step else ()


def _steps(metrics: Path) -> list[int]:
    return [line["step"] for line in _records(metrics)]


def _records(metrics: Path) -> list[dict[str, Any]]:
    """Every whole line; a kill may have torn one."""
    if not metrics.exists():
        return []
    found = []
    for line in metrics.read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _tail(shop: Path, out: str) -> str:
    return (shop / f"{out}.log").read_text()[-2000:]


def _shop(folder: Path) -> Path:
    shop = kit.workshop(folder)
    chats = [json.loads(line)["messages"] for line in (shop / "chat.jsonl").open()]
    pairs = zip(chats, [*chats[5:], *chats[:5]], strict=True)
    rows = [{"chosen": one, "rejected": [one[0], other[1]]} for one, other in pairs]
    answers = [{"content": one[:1], "teacher_response": one[1]["content"]} for one in chats]
    for name, each in (("pairs.jsonl", rows), ("distill.jsonl", answers)):
        (shop / name).write_text("".join(json.dumps(row) + "\n" for row in each))
    return shop
