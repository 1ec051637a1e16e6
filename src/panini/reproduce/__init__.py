"""The paper's tables and figures, from one command: `panini reproduce`."""

from panini.reproduce.budget import Budget, BudgetConfig, load_budget
from panini.reproduce.parts import ALL, PARTS, reproduce
from panini.reproduce.study import Options, Study

__all__ = [
    "ALL",
    "PARTS",
    "Budget",
    "BudgetConfig",
    "Options",
    "Study",
    "load_budget",
    "reproduce",
]
