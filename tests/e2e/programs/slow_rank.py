"""Two ranks that write one DeepSpeed checkpoint, the second of them far too late: its last shard
comes when every marker file (`latest`, `trainer_state.json`) has been there for seconds. When each
file was closed, and what it held, is recorded outside the run."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

NAME, TAG = "checkpoint-1", "global_step1"
LATE = {
    0: ["rng_state_1.pth"],
    2: [f"{TAG}/zero_pp_rank_1_mp_rank_00_optim_states.pt"],
    3: [f"{TAG}/zero_pp_rank_1_mp_rank_00_optim_states.pt"],
}


def main() -> int:
    options = _options()
    if options.rank is None:
        return launch()
    folder = Path("out") / NAME
    for path in files(options.stage, options.rank):
        late = path in LATE[options.stage]
        write(folder / path, options, slow_s=options.late_s if late else 0.0)
    if options.rank == 0:
        time.sleep(options.late_s + 8)
        for path in ("model.safetensors", "config.json", "trainer_state.json"):
            write(Path("out") / path, options)
    return 0


def launch() -> int:
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--rank", str(rank)],
            env={**os.environ, "WORLD_SIZE": "2", "RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    return max(rank.wait() for rank in ranks)


def files(stage: int, rank: int) -> list[str]:
    """In the order that was observed: rank 0 writes `latest` early and the state last."""
    own = [f"rng_state_{rank}.pth"]
    if stage >= 2:
        own.insert(0, f"{TAG}/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    if stage == 3:
        own.insert(0, f"{TAG}/zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    if rank == 1:
        return sorted(own, key=lambda path: path in LATE[stage])
    model = [] if stage == 3 else [f"{TAG}/mp_rank_00_model_states.pt"]
    return ["model.safetensors", "config.json", *model, "latest", *own, "scheduler.pt",
            "trainer_state.json"]  # fmt: skip


def write(path: Path, options: argparse.Namespace, slow_s: float = 0.0) -> None:
    """A late file first does not exist, then is half there and open, and then is closed."""
    time.sleep(slow_s * 0.7)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content(path)
    with path.open("wb") as file:
        file.write(data[:10])
        file.flush()
        time.sleep(slow_s * 0.3)
        file.write(data[10:])
    record = {"path": str(path), "sha256": hashlib.sha256(data).hexdigest(), "at": time.time()}
    with options.record.open("a") as file:
        file.write(json.dumps(record) + "\n")


def content(path: Path) -> bytes:
    if path.name == "latest":
        return TAG.encode()
    if path.name == "trainer_state.json":
        return json.dumps({"global_step": 1, "max_steps": 1}).encode()
    data = str(path).encode() * 100
    if path.suffix != ".safetensors":
        return data
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--late-s", type=float, default=10.0)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--rank", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
