"""Stands in for the package of the fine-tuning guide."""
