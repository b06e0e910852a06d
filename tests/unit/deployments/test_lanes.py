"""Which runs share their places: an emergency shares its own with nothing that a schedule, a form or an alert can fill."""

from __future__ import annotations

from deployments.definitions import DEPLOYMENTS
from deployments.serve import LANES, lane_of


def test_only_the_emergency_flatten_is_in_the_emergency_lane_and_every_deployment_has_one() -> None:
    lanes = {deployment.flow: lane_of(deployment) for deployment in DEPLOYMENTS}
    assert [flow for flow, lane in lanes.items() if lane == "emergency"] == ["emergency-flatten"]
    assert set(lanes.values()) == set(LANES)
