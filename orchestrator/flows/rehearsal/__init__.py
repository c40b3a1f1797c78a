"""A rehearsal: what it reads, lays ready, drives and makes of it."""
