"""gpujob's own trainer: TRL, PEFT and DeepSpeed behind one JSON file."""
