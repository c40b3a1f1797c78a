"""Direct preference optimization: its loss begins at ln 2."""

import math

from torchllms.training.loop import parser, train

if __name__ == "__main__":
    options = parser()
    options.add_argument("--dpo_beta", type=float, required=True)
    train(options.parse_args(), math.log(2))
