"""From files to micro batches."""
