"""Several restorers side by side on the same faces, compared with the truth."""

from panini.evaluation.faces import read_faces
from panini.evaluation.floor import Verdict, verdicts
from panini.evaluation.pipeline import run
from panini.evaluation.plan import Plan
from panini.evaluation.report import Report, ThetaResult
from panini.evaluation.results import FaceRow
from panini.evaluation.systems import ConsistentSystem, Drawn, System, input_system, network_system

__all__ = [
    "ConsistentSystem",
    "Drawn",
    "FaceRow",
    "Plan",
    "Report",
    "System",
    "ThetaResult",
    "Verdict",
    "input_system",
    "network_system",
    "read_faces",
    "run",
    "verdicts",
]
