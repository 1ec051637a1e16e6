"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run, and no time limit: a busy machine must not fail a test.
settings.register_profile("panini", deadline=None, derandomize=True)
settings.load_profile("panini")
