"""Saves checkpoints of a LoRA in the order of the Hugging Face Trainer, and writes down when each
was complete: what the mirror is timed against. It knows nothing of gpujob."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

ADAPTER = 1 / 3  # of the bytes; the optimizer holds two more for each


def main() -> None:
    options = _options()
    data = os.urandom(options.bytes)
    out = Path(os.environ["GPUJOB_CHECKPOINT_DIR"])
    for step in range(1, options.saves + 1):
        save(out / f"checkpoint-{step}", step, options.saves, data)
        with options.record.open("a") as record:
            record.write(json.dumps({"step": step, "complete_at": time.time()}) + "\n")
        time.sleep(options.pause)
    write_adapter(out, options.saves, data[:1000])


def save(folder: Path, step: int, steps: int, data: bytes) -> None:
    """No file equals one of another step, so that nothing is spared the way."""
    folder.mkdir(parents=True)
    split = int(len(data) * ADAPTER)
    write_adapter(folder, step, data[:split])
    with (folder / "optimizer.pt").open("wb") as file:
        file.write(b"%d\n" % step)
        file.write(memoryview(data)[split:])
    for name in ("scheduler.pt", "rng_state.pth", "training_args.bin"):
        (folder / name).write_text(f"{name} {step}")
    state = {"global_step": step, "max_steps": steps, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def write_adapter(folder: Path, step: int, data: bytes) -> None:
    """safetensors: the header's length, the header, the tensors."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"step": str(step)}, "lora": tensor}).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(data)
    (folder / "adapter_config.json").write_text("{}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--saves", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--pause", type=float, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
