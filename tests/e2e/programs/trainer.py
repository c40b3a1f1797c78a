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
        _metric(step, options.steps)
        if step == options.crash_at and not options.resume:
            raise RuntimeError("boom")
        if step % options.every == 0:
            _save(options, step)
    for name in ("config.json", "model.safetensors"):
        (options.out / name).write_bytes(_content(name, step))
    _write_state(options.out, step, options.steps)
    print("done", flush=True)
    return 0


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


def _metric(step: int, most: int) -> None:
    path = os.environ.get("GPUJOB_METRICS")
    if path:
        with Path(path).open("a") as file:
            file.write(
                json.dumps({"v": 1, "step": step, "max_steps": most, "loss": 9 / step}) + "\n"
            )


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
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--record", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
