"""GAD on a toy task: the teacher goes on in the alphabet, which the student half knows after a
short warm-up. The control differs in one thing: each answer gets another answer's reward."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LETTERS = "bcdfghjk"
SPOKEN = 5
WARMUP_STEPS, STEPS = 32, 200
# How many steps the discriminator's accuracy is the mean of, at the beginning and at the end.
WINDOW = 20
LEAST_BEFORE, LEAST_FALL, LEAST_POINTS = 0.7, 0.15, 10.0
GAD = {"rollouts": 8, "max_new_tokens": 8, "temperature": 1.0, "critic_learning_rate": 3e-4}


def gad_toy(seeds: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """Each seed, and then the medians, which are what is asked for."""
    told = []
    for seed in seeds:
        told.append(_live_through(folder / str(seed), seed))
        yield {**told[-1], "violations": []}
    if told:
        yield _medians(told)


def write_task(folder: Path) -> None:
    """`toy.jsonl` and `toy.txt`, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"content": [{"role": "user", "content": letter}], "teacher_response": answer(letter)}
        for letter in LETTERS * 8
    ]
    (folder / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "toy.txt").write_text("\n".join([" ".join(LETTERS)] * 50))


def answer(letter: str) -> str:
    """The teacher's: the letters that follow, round and round."""
    at = LETTERS.index(letter)
    return " ".join((LETTERS * 2)[at : at + SPOKEN])


def settings(out: str, seed: int, steps: int, gad: dict[str, Any], **args: Any) -> dict[str, Any]:
    """A `train:` mapping, to be run in the task's folder."""
    return {
        "method": "gad",
        "model": "tiny",
        "full": True,
        "data": "toy.jsonl",
        "max_seq_length": 64,
        "evaluate": {"data": "toy.jsonl"},
        "gad": {**GAD, **gad},
        "args": {
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 64,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 1.0,
            "save_strategy": "no",
            "seed": seed,
            "max_steps": steps,
            "output_dir": out,
            **args,
        },
    }


def warmup(seed: int) -> dict[str, Any]:
    return settings("warmup", seed, WARMUP_STEPS, {"critic_warmup": 5}, learning_rate=1e-3)


def adversarial(out: str, seed: int, steps: int = STEPS, **gad: Any) -> dict[str, Any]:
    own = {"stage": "adversarial", "warmup_from": "warmup", **gad}
    return settings(out, seed, steps, own, learning_rate=3e-4)


def _live_through(folder: Path, seed: int) -> dict[str, Any]:
    began = time.monotonic()
    write_task(folder)
    words = ["--out", "tiny", "--texts", "toy.txt", "--hidden", "48", "--vocabulary", "300"]
    _wait(_start(folder, "remote.trainer.tiny", *words, "--seed", str(seed)))
    (warmed,) = _train(folder, warmup(seed))
    learned, control = _train(
        folder, adversarial("true", seed), adversarial("control", seed, shuffle_rewards=True)
    )
    accuracy = [record["gad/d_acc"] for record in learned if "gad/d_acc" in record]
    before, after = (statistics.mean(some) for some in (accuracy[:WINDOW], accuracy[-WINDOW:]))
    agreed = {"warmup": warmed, "true": learned, "control": control}
    points = {name: round(100 * _agreement(some), 1) for name, some in agreed.items()}
    return {
        "seed": seed,
        "d_acc_before": round(before, 3),
        "d_acc_after": round(after, 3),
        "fall": round(before - after, 3),
        "agreement": points,
        "gain": round(points["true"] - points["control"], 1),
        "took_s": round(time.monotonic() - began, 1),
    }


def _agreement(history: list[dict[str, Any]]) -> float:
    return float([record["eval_agreement"] for record in history if "eval_loss" in record][-1])


def _medians(told: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("d_acc_before", "fall", "gain")
    medians = {name: statistics.median(each[name] for each in told) for name in names}
    least = {"d_acc_before": LEAST_BEFORE, "fall": LEAST_FALL, "gain": LEAST_POINTS}
    violations = [
        f"median {name} is {medians[name]}, and {wanted} is asked for"
        for name, wanted in least.items()
        if medians[name] < wanted
    ]
    return {"seed": "median", **medians, "violations": violations}


def _train(folder: Path, *trains: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """All of them at once; what each has logged."""
    names = [train["args"]["output_dir"] for train in trains]
    for name, train in zip(names, trains, strict=True):
        (folder / f"{name}.json").write_text(json.dumps(train))
    started = [_start(folder, "remote.trainer", f"{name}.json") for name in names]
    for each in started:
        _wait(each)
    states = (json.loads((folder / name / "trainer_state.json").read_text()) for name in names)
    return [state["log_history"] for state in states]


def _start(folder: Path, module: str, *words: str) -> subprocess.Popen[str]:
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}: {said}")
