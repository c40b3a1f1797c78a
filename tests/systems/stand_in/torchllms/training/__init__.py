"""Stands in for torchllms: the same options, files and lines."""
