from __future__ import annotations

import logging

import pytest

from tests.fakes.own_records import own_records
from velox_core.alerts.log import RECENT_ALERTS_MAX, LogAlerts
from velox_core.ports import Severity


def test_alerts_send_logs_at_the_severitys_level_and_keeps_the_message(caplog: pytest.LogCaptureFixture) -> None:
    alerts = LogAlerts()
    with caplog.at_level(logging.INFO, logger="velox.system"):
        alerts.send(Severity.CRITICAL, "Loss limit", "all positions are being closed")
        alerts.send(Severity.INFO, "Flat", "done")
    assert [(record.levelname, record.getMessage()) for record in own_records(caplog)] == [
        ("CRITICAL", "ALERT Loss limit: all positions are being closed"),
        ("INFO", "ALERT Flat: done"),
    ]
    assert [alert.title for alert in alerts.recent] == ["Loss limit", "Flat"]


def test_alerts_when_many_are_sent_the_oldest_leave_and_all_are_counted() -> None:
    alerts = LogAlerts()
    for number in range(RECENT_ALERTS_MAX + 3):
        alerts.send(Severity.WARNING, str(number), "")
    assert alerts.sent == RECENT_ALERTS_MAX + 3
    assert len(alerts.recent) == RECENT_ALERTS_MAX
    assert alerts.recent[0].title == "3"
