"""The SOCRATES project's training script by its own options: TRL and peft under DeepSpeed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pieces
from huggingface import Settings, Trainer


def main() -> None:
    pieces.begin()
    options = _options()
    config = json.loads(options.config.read_text())
    engine = json.loads(options.deepspeed.read_text())
    training = config["training"]
    print(f"Model: {config['model_name']}\nOutput: {config['output_dir']}")
    if training["save_steps"] % training["eval_steps"]:  # TrainingArguments, with the script's own
        raise ValueError(
            "--load_best_model_at_end requires the saving steps to be a round multiple"
        )
    for name in ("train", "val"):
        rows = (Path(config["data_dir"]) / f"{name}.jsonl").read_text().splitlines()
        print(f"{name.capitalize()}: {len(rows):,} examples")
    print(f"Scheduler: {engine.get('scheduler', {}).get('type', training['lr_scheduler_type'])}")
    settings = Settings(
        output=Path(config["output_dir"]),
        steps=training.get("max_steps", -1) if training.get("max_steps", -1) > 0 else pieces.STEPS,
        save_steps=training["save_steps"],
        logging_steps=training["logging_steps"],
        learning_rate=training["learning_rate"],
        save_total_limit=3,
        eval_steps=training["eval_steps"],
        zero=True,
    )
    Trainer(settings).train(options.resume_from_checkpoint)
    print("TRAINING COMPLETE")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config_full_dataset.json"))
    parser.add_argument("--deepspeed", type=Path, default=Path("deepspeed_config.json"))
    parser.add_argument("--resume-from-checkpoint", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
