"""SimPO."""

from torchllms.training.loop import parser, train

if __name__ == "__main__":
    options = parser()
    options.add_argument("--simpo_beta", type=float, required=True)
    options.add_argument("--simpo_gamma", type=float, required=True)
    train(options.parse_args(), 1.3)
