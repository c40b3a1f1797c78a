"""Thunder Compute, emulated from its documents: reference/thunder.md."""
