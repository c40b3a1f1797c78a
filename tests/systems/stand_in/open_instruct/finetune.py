"""Supervised fine-tuning: DeepSpeed from two GPUs on."""

import pieces

from open_instruct.loop import Run

if __name__ == "__main__":
    Run(zero=pieces.world() > 1).train(first_loss=1.3, printed=1)
