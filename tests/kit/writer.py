"""A program that saves as the Hugging Face Trainer does, without torch, and records outside the
run what it wrote: the oracle for whoever says that a checkpoint is safe.

Each line of the record: {"step", "path", "sha256", "closed_at"} or {"step", "complete_at"}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    options = _options()
    for step in range(options.every, options.steps + 1, options.every):
        _rotate(options.out, options.keep)
        _save(options, step)
        time.sleep(options.pause)
    if options.final:
        _write(options, 0, options.out, "model.safetensors", _safetensors(b"final weights"))
        _write(options, 0, options.out, "config.json", b"{}")
        state = _state(options.steps, options.steps)
        _write(options, 0, options.out, "trainer_state.json", state)
    raise SystemExit(options.rc)


def _save(options: argparse.Namespace, step: int) -> None:
    folder = options.out / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in _files(options, step):
        _write(options, step, folder, path, data)
    for path in _late(options, step):
        time.sleep(options.late)
        _write(options, step, folder, path, _bytes(options, step, path), hold=options.hold)
    _record(options, {"step": step, "complete_at": time.time()})


def _files(options: argparse.Namespace, step: int) -> Iterator[tuple[str, bytes]]:
    names = ["config.json", "model.safetensors", "training_args.bin"]
    names += [] if options.zero is not None else ["optimizer.pt"]
    for name in names:
        yield name, _bytes(options, step, name)
    if options.zero is not None:
        yield "latest", f"global_step{step}".encode()
        for name in _shards(options, step):
            if name not in _late(options, step):
                yield name, _bytes(options, step, name)
    yield "scheduler.pt", _bytes(options, step, "scheduler.pt")
    for rank in range(options.world):
        name = "rng_state.pth" if options.world == 1 else f"rng_state_{rank}.pth"
        if name not in _late(options, step):
            yield name, _bytes(options, step, name)
    yield "trainer_state.json", _state(step, options.steps)


def _shards(options: argparse.Namespace, step: int) -> list[str]:
    tag, ranks = f"global_step{step}", range(options.world)
    optimizer = [f"{tag}/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in ranks]
    if options.zero == 0:
        return [f"{tag}/mp_rank_00_model_states.pt"]
    if options.zero == 3:
        models = [f"{tag}/zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in ranks]
        return [*models, *optimizer]
    return [f"{tag}/mp_rank_00_model_states.pt", *optimizer]


def _late(options: argparse.Namespace, step: int) -> list[str]:
    """The last rank's last file, when it is slow."""
    if not options.late and not options.hold:
        return []
    shards = _shards(options, step) if options.zero else []
    return shards[-1:] or [f"rng_state_{options.world - 1}.pth"]


def _bytes(options: argparse.Namespace, step: int, name: str) -> bytes:
    seed = hashlib.sha256(f"{options.salt}/{step}/{name}".encode()).digest()
    data = seed * (options.size // len(seed) + 1)
    return _safetensors(data) if name.endswith(".safetensors") else data


def _safetensors(data: bytes) -> bytes:
    """One tensor of bytes: a file that says itself how long it is."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def _state(step: int, steps: int) -> bytes:
    return json.dumps({"global_step": step, "max_steps": steps, "log_history": []}).encode()


def _write(
    options: argparse.Namespace, step: int, folder: Path, name: str, data: bytes, hold: float = 0
) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(hold)
        file.write(data[len(data) // 2 :])
    digest = hashlib.sha256(data).hexdigest()
    relative = path.relative_to(folder).as_posix()
    said = {"step": step, "path": relative, "sha256": digest, "closed_at": time.time()}
    _record(options, said)


def _rotate(out: Path, keep: int) -> None:
    """As `save_total_limit` does: the oldest go, whole, before the new one is written."""
    folders = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for folder in folders[: -keep or None] if keep else []:
        shutil.rmtree(folder, ignore_errors=True)


def _record(options: argparse.Namespace, said: dict[str, object]) -> None:
    with options.record.open("a") as file:
        file.write(json.dumps(said) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(os.environ["GPUJOB_CHECKPOINT_DIR"]))
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--keep", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--zero", type=int)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--late", type=float, default=0.0)
    parser.add_argument("--hold", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--salt", default="")
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--rc", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
