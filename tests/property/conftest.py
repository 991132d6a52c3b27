"""How hard the properties are tried: enough to find what is wrong, few enough to be run all the time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fast", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fast")
