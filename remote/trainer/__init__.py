"""gpujob's own trainer: one loop over torch or DeepSpeed, behind one JSON file."""
