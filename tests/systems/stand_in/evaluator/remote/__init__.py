"""Stands in for gpujob's evaluation, which loads a model of 28 GB."""
