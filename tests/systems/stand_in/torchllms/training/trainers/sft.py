"""Supervised fine-tuning."""

from torchllms.training.loop import parser, train

if __name__ == "__main__":
    train(parser().parse_args(), 2.5)
