"""The version: of the package, and what a command and a running daemon compare."""

VERSION = "0.1.0"
