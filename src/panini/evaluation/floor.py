"""What is asked of weights that ship: as many demands as the numbers of a report can decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from panini.evaluation.plan import GRID, THETA
from panini.evaluation.report import Report
from panini.evaluation.sizes import COMPARED_SIZE
from panini.models.panini_net import Task

LATTICE_LIMIT = 1.0
"""Levels of 255. One level is the step of 8 bits; the mobile prior's own faces have 0.3 to 0.7."""

NEEDED: dict[Task, tuple[str, ...]] = {
    "mfr": ("psnr", "lpips", "identity", GRID, THETA),
    "sr16": ("psnr_full", "lpips", "identity"),
}
"""Task → metrics without which some demand stays undecided."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One demand of the floor for shipped weights."""

    demand: str
    measured: str
    passed: bool


def verdicts(report: Report, system: str) -> list[Verdict]:
    """The demands that were measured; eyes, teeth and hair are for a person to see.

    Returns:
        None at all for ready pairs, and for other degradations and sizes than those that the floor
        is about: weights have neither met nor missed it there, so an empty list is not a pass.
    """
    plan = report.plan
    if plan.lq is not None or plan.degradations != "floor" or plan.size != COMPARED_SIZE:
        return []
    demands = _MFR if report.plan.task == "mfr" else _SR16
    return [
        verdict
        for metric, decide in demands
        if (metric == THETA and system in report.theta) or metric in report.metrics
        if (verdict := decide(report, system))
    ]


def _lpips_mfr(report: Report, system: str) -> Verdict:
    return _lpips(report, system, "at least 25 % below the input's", 0.75)


def _lpips_sr16(report: Report, system: str) -> Verdict:
    return _lpips(report, system, "at least 50 % below bicubic's", 0.5)


def _lpips(report: Report, system: str, demand: str, most: float) -> Verdict:
    ratio = _mean(report, system, "lpips") / max(_mean(report, report.input, "lpips"), 1e-12)
    return Verdict(
        demand=f"{report.names.get('lpips', 'lpips')} {demand}",
        measured=f"{100 * (ratio - 1):+.1f} %",
        passed=ratio <= most,
    )


def _identity_mfr(report: Report, system: str) -> Verdict:
    before, after = (_mean(report, name, "identity") for name in (report.input, system))
    return Verdict(
        demand="identity distance below the input's",
        measured=f"{after:.3f} against {before:.3f}",
        passed=after < before,
    )


def _identity_sr16(report: Report, system: str) -> Verdict:
    before, after = (_mean(report, name, "identity") for name in (report.input, system))
    return Verdict(
        demand="identity distance at most half of bicubic's",
        measured=f"{after:.3f} against {before:.3f}",
        passed=after / max(before, 1e-12) <= 0.5,
    )


def _psnr_mfr(report: Report, system: str) -> Verdict:
    gain = _mean(report, system, "psnr") - _mean(report, report.input, "psnr")
    return Verdict(
        demand="PSNR at least the input's less 0.5 dB",
        measured=f"{gain:+.2f} dB",
        passed=gain >= -0.5,
    )


def _psnr_sr16(report: Report, system: str) -> Verdict:
    gain = _mean(report, system, "psnr_full") - _mean(report, report.input, "psnr_full")
    return Verdict(
        demand="PSNR at full size at least bicubic's",
        measured=f"{gain:+.2f} dB",
        passed=gain >= 0,
    )


def _theta(report: Report, system: str) -> Verdict:
    rising = report.theta[system].rising
    return Verdict(
        demand="θ rises with the rate on at least 90 % of the faces",
        measured=f"{100 * rising:.1f} %",
        passed=rising >= 0.9,
    )


def _grid(report: Report, system: str) -> Verdict:
    most = float(np.max(report.values(system, GRID)))
    return Verdict(
        demand="no lattice of a whole level (of 255) in any restored face",
        measured=f"at most {most:.2f} levels",
        passed=most < LATTICE_LIMIT,
    )


def _mean(report: Report, system: str, metric: str) -> float:
    # Not `Report.mean`, which leaves faces out that could not be measured: here those must fail.
    return float(np.mean(report.values(system, metric)))


_MFR = (
    ("lpips", _lpips_mfr),
    ("identity", _identity_mfr),
    ("psnr", _psnr_mfr),
    (THETA, _theta),
    (GRID, _grid),
)
_SR16 = (("psnr_full", _psnr_sr16), ("lpips", _lpips_sr16), ("identity", _identity_sr16))
