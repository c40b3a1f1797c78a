"""`python -m remote.trainer.tiny --out DIR --texts FILE…`: a tiny model for tests and the demo."""

from __future__ import annotations

import argparse
from pathlib import Path

from remote.trainer import setup


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m remote.trainer.tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, metavar="FILE")
    for name, default in (("vocabulary", 512), ("hidden", 128), ("layers", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    options = parser.parse_args()
    setup.prepare_libraries()
    from remote.trainer.tiny_model import build  # imports torch, which reads the environment

    build(
        options.out,
        options.texts,
        vocabulary=options.vocabulary,
        hidden=options.hidden,
        layers=options.layers,
        seed=options.seed,
    )
    print(f"wrote a {options.layers}-layer model and its tokenizer to {options.out}")


if __name__ == "__main__":
    main()
