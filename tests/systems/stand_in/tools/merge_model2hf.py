"""Stands in for the project's tool: one file of weights out of the shards of all ranks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import pieces


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_dir", type=Path, required=True)
    folder = parser.parse_args().local_dir
    shards = sorted(folder.glob("model_world_size_*_rank_*.pt"))
    if not shards:
        raise SystemExit(f"no shards in {folder}")
    pieces.write(folder / "huggingface" / "model.safetensors", pieces.safetensors(len(shards)))


if __name__ == "__main__":
    main()
