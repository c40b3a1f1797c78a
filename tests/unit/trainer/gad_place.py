"""What GAD's tests share: distillation rows, runs of both stages, and the form with adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer_place import Place, chat, write

GAD: dict[str, Any] = {"rollouts": 3, "max_new_tokens": 8, "critic_warmup": 2}
ARGS: dict[str, Any] = {
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 1,
    "lr_scheduler_type": "constant",
    "learning_rate": 2e-3,
}
FORMS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"lora": {"r": 4, "alpha": 8}}}


def distill(place: Place) -> Path:
    """40 rows, a question and the teacher's answer."""
    path = place.folder / "distill.jsonl"
    if not path.exists():
        chats = [chat(i) for i in range(40)]
        write(path, [{"content": c[:1], "teacher_response": c[1]["content"]} for c in chats])
    return path


def play(
    place: Place, out: str, gad: dict[str, Any], *, resume: str | None = None, **changes: Any
) -> list[dict[str, Any]]:
    """A whole run; the records of its steps and evaluations."""
    args = {**ARGS, **changes.pop("args", {})}
    data = str(distill(place))
    own = {"method": "gad", "data": data, "gad": {**GAD, **gad}, "args": args}
    assert place.run(out, resume=resume, **{**own, **changes}) == 0
    return place.history(out)


def warm(place: Place, form: str) -> str:
    """A finished warm-up of `form`, run once; the name of its folder."""
    out = f"gad-warm-{form}"
    if not (place.folder / out / "trainer_state.json").exists():
        play(place, out, {}, **FORMS[form])
    return out


def after(place: Place, form: str, **changes: Any) -> dict[str, Any]:
    """`gad` of an adversarial stage that begins with that warm-up."""
    folder = str(place.folder / warm(place, form))
    return {"stage": "adversarial", "critic_warmup": 0, "warmup_from": folder, **changes}


def rows(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in distill(place).read_text().splitlines()]
