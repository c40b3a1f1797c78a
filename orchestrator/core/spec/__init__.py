"""The job file: read, checked all at once, one frozen value."""

from orchestrator.core.spec.checkpoints import Checkpoints, Keep, LayoutRule, Resume
from orchestrator.core.spec.gpu import GpuNeed, parse_gpu
from orchestrator.core.spec.job import (
    Code,
    DataItem,
    Gate,
    Git,
    Health,
    Job,
    Phase,
    Recovery,
    StartFrom,
)
from orchestrator.core.spec.load import load_job, parse_job
from orchestrator.core.spec.problems import JobFileError, Problem
from orchestrator.core.spec.resources import Budget, Resources, Volume
from orchestrator.core.spec.schema import job_schema
from orchestrator.core.spec.training import Lora, Train

__all__ = [
    "Budget",
    "Checkpoints",
    "Code",
    "DataItem",
    "Gate",
    "Git",
    "GpuNeed",
    "Health",
    "Job",
    "JobFileError",
    "Keep",
    "LayoutRule",
    "Lora",
    "Phase",
    "Problem",
    "Recovery",
    "Resources",
    "Resume",
    "StartFrom",
    "Train",
    "Volume",
    "job_schema",
    "load_job",
    "parse_gpu",
    "parse_job",
]
