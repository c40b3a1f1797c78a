"""GAD (arXiv 2511.10643): a student learns to answer so that a discriminator, which learns beside
it, cannot tell its answers from a teacher's."""

from remote.trainer.methods.gad.build import build

__all__ = ["build"]
