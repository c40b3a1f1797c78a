"""What a rehearsal runs where the user's own trainer cannot: it reads the same command line and
settings files, and writes that trainer's layout and log lines. Standard library only."""
