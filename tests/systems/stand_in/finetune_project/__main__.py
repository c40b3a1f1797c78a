"""`python -m finetune_project train --config FILE`, as its guide documents it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pieces
import yaml
from huggingface import Settings, Trainer


def main() -> None:
    pieces.begin()
    options = _options()
    config = yaml.safe_load(options.config.read_text())
    training = config["training"]
    batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    rows = len(Path(config["data"]["train_file"]).read_text().splitlines())
    steps = training["max_steps"]
    if steps <= 0:
        steps = training["num_epochs"] * rows // batch
    print(f"qlora={config['model']['use_qlora']} rank={config['model']['lora_rank']} batch={batch}")
    settings = Settings(
        output=Path(training["output_dir"]),
        steps=steps,
        save_steps=training["save_steps"],
        logging_steps=training["logging_steps"],
        learning_rate=training["learning_rate"],
        save_total_limit=training["save_total_limit"],
    )
    Trainer(settings).train(options.resume_from_checkpoint)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetune_project")
    train = parser.add_subparsers(required=True).add_parser("train")
    train.add_argument("--config", type=Path, required=True)
    train.add_argument("--resume-from-checkpoint", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
