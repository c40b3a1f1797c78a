"""A rehearsal: the whole job made small enough for this machine, and what that proves. Pure."""
