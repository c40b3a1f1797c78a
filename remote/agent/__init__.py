"""The process on the box: starts the trainer, keeps its checkpoints, serves files."""

VERSION = "0.1.0"
