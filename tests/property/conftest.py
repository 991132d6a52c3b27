"""Sets the number of examples: enough to find errors, and few enough to run always."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fast", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fast")
