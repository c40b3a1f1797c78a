"""`python -m orchestrator.cli`, which is how the daemon is started."""

from orchestrator.cli import main

main()
