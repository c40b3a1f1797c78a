"""An emulated long link, for benchmarks: `emulator.c`, who starts it, and what it alone carries."""
