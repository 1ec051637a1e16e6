"""Many photos: which ones, where each goes, how they are worked through, and what was done."""

from panini.batch.pipeline import BatchOptions, run
from panini.batch.plan import Job, Plan, make_plan
from panini.batch.report import FaceRecord, Outcome, Report

__all__ = [
    "BatchOptions",
    "FaceRecord",
    "Job",
    "Outcome",
    "Plan",
    "Report",
    "make_plan",
    "run",
]
