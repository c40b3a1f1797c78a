"""A trainer of somebody else: writes checkpoints as the Hugging Face Trainer does, in its order,
with its retention, and knows nothing of gpujob. What it wrote is recorded outside the run."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path


def main() -> int:
    options = _options()
    step = _resume(options.resume)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"training from step {step} to {options.steps}", flush=True)
    while step < options.steps:
        time.sleep(options.step_s)
        step += 1
        _tell(options, step)
        if step == options.crash_at and _is_first(options):
            raise RuntimeError(options.crash_words)
        if step == options.hang_at and not options.resume:
            time.sleep(3600)
        if step % options.every == 0:
            _save(options, step)
    for name in ("config.json", "model.safetensors"):
        (options.out / name).write_bytes(_content(name, step))
    _write_state(options.out, step, options.steps)
    if options.evaluates:
        options.evaluates.parent.mkdir(parents=True, exist_ok=True)
        options.evaluates.write_text(json.dumps({"wasserstein": 0.1, "parse_rate": 1.0}))
    print("done", flush=True)
    return 0


def _is_first(options: argparse.Namespace) -> bool:
    """Whether it was never there before: by what it resumes from, or by a file of its own."""
    if options.crash_once is None:
        return options.resume is None
    if options.crash_once.exists():
        return False
    options.crash_once.touch()
    return True


def _save(options: argparse.Namespace, step: int) -> None:
    folder = options.out / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    for name in (
        "config.json",
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
    ):
        (folder / name).write_bytes(_content(name, step, options.size))
    _write_state(folder, step, options.steps)
    if options.record:
        _record(options.record, folder)
    found = sorted(options.out.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    for old in found[: -options.limit]:
        shutil.rmtree(old, ignore_errors=True)


def _content(name: str, step: int, size: int = 1000) -> bytes:
    """Bytes that only this step has: a mix of two steps is no checkpoint's hash."""
    seed = hashlib.sha256(f"{name}:{step}".encode()).digest()
    if name != "model.safetensors":
        return seed * 4
    length = size // 32 * 32
    tensor = {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}
    header = json.dumps({"w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + seed * (length // 32)


def _write_state(folder: Path, step: int, most: int) -> None:
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": most}))


def _record(record: Path, folder: Path) -> None:
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    with record.open("a") as file:
        line = {"name": folder.name, "at": time.time(), "files": files}
        file.write(json.dumps(line) + "\n")


def _tell(options: argparse.Namespace, step: int) -> None:
    """To gpujob, or as the Hugging Face Trainer does below its progress bar."""
    if options.prints:
        loss = "nan" if step == options.nan_at else f"{9 / step:.4g}"
        shown = {"loss": loss, "grad_norm": "1.5", "learning_rate": "1e-05", "epoch": "0.1"}
        done = f"{step}/{options.steps} [00:01<00:01,  2.00it/s]"
        bar = f"{100 * step // options.steps:3d}%|#         | {done}"
        print(f"{shown}\n{bar}\r", end="", flush=True)
        return
    path = os.environ.get("GPUJOB_METRICS")
    if path:
        with Path(path).open("a") as file:
            told = {"v": 1, "step": step, "max_steps": options.steps, "loss": 9 / step}
            file.write(json.dumps(told) + "\n")


def _resume(folder: Path | None) -> int:
    if folder is None:
        return 0
    step = int(json.loads((folder / "trainer_state.json").read_text())["global_step"])
    data = (folder / "model.safetensors").read_bytes()
    tensor_bytes = len(data) - 8 - int.from_bytes(data[:8], "little")
    written = _content("model.safetensors", step, tensor_bytes)
    assert data == written, "not the checkpoint that was written"
    return step


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--step-s", type=float, default=0.12)
    parser.add_argument("--limit", type=int, default=2)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--crash-at", type=int, default=0)
    parser.add_argument("--crash-once", type=Path)
    parser.add_argument("--hang-at", type=int, default=0)
    parser.add_argument("--nan-at", type=int, default=0)
    parser.add_argument("--crash-words", default="boom")
    parser.add_argument("--prints", action="store_true")
    parser.add_argument("--evaluates", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--record", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
