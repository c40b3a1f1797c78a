"""Puts a writer between the libraries and their files, where each of them writes."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sim.writers_pace import Writer


def slow_torch(writer: Writer) -> None:
    """`torch.save` to a name or into an open file; everybody calls it through the module."""
    import torch

    save = torch.save

    def data(thing: Any, *rest: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        save(thing, buffer, *rest, **options)
        return buffer.getvalue()

    def slow(thing: Any, f: Any, *rest: Any, **options: Any) -> None:
        if isinstance(f, io.BytesIO):
            return save(thing, f, *rest, **options)
        return writer.slowly(
            f,
            lambda: save(thing, f, *rest, **options),
            lambda: data(thing, *rest, **options),
        )

    torch.save = slow


def slow_safetensors(writer: Writer, *modules: Any) -> None:
    """`modules` imported `save_file` under the name `safe_save_file`."""
    from safetensors.torch import save, save_file

    def slow(tensors: Any, filename: Any, metadata: Any = None) -> None:
        writer.slowly(
            filename,
            lambda: save_file(tensors, filename, metadata=metadata),
            lambda: save(tensors, metadata=metadata),
        )

    for module in modules:
        module.safe_save_file = slow


def slow_trainer_state(writer: Writer) -> None:
    from transformers import TrainerState

    save = TrainerState.save_to_json

    def data(state: Any) -> bytes:
        return (json.dumps(asdict(state), indent=2, sort_keys=True) + "\n").encode()

    def slow(self: Any, json_path: str) -> None:
        writer.slowly(json_path, lambda: save(self, json_path), lambda: data(self))

    TrainerState.save_to_json = slow  # type: ignore[method-assign]


def slow_fsspec(writer: Writer) -> None:
    """Lightning's transaction writes beside and moves, which copies between two disks."""
    from fsspec.implementations.local import LocalFileOpener

    write, copy = LocalFileOpener.write, shutil.copyfile

    def slow_write(self: Any, block: bytes) -> Any:
        return writer.slowly(self, lambda: write(self, block), lambda: bytes(block))

    def slow_copy(src: Any, dst: Any, **options: Any) -> Any:
        writer.slowly(dst, lambda: copy(src, dst, **options), lambda: Path(src).read_bytes())
        return dst

    LocalFileOpener.write = slow_write
    shutil.copyfile = slow_copy


def slow_rename(writer: Writer) -> None:
    """DCP's `.metadata` comes late under its own name."""
    from torch.distributed.checkpoint.filesystem import FileSystem

    rename = FileSystem.rename

    def slow(self: Any, path: Any, new_path: Any) -> None:
        writer.slowly(new_path, lambda: rename(self, path, new_path))

    FileSystem.rename = slow  # type: ignore[method-assign]
