"""Stands in for the fork of verl that the project trains with."""
