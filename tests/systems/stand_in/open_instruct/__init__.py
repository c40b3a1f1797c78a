"""Stands in for the project's fork of open-instruct."""
