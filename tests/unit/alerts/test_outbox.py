"""The outbox: who gets which message, what fails over, what is joined, what is never dropped, and what the end lets leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.fakes.channels import FakeChannel
from velox_core.alerts import outbox
from velox_core.alerts.log import LogAlerts
from velox_core.alerts.outbox import ChannelAlerts
from velox_core.ports import Severity

LONG_SECONDS = 120.0
INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL


class Seconds:
    """Monotonic seconds that a test moves; it runs along with the real ones, so that waits end."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture(autouse=True)
def patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no channel that hangs."""
    monkeypatch.setattr(ChannelAlerts.close, "__defaults__", (LONG_SECONDS,))


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that failed pauses as long as the test lasts."""
    monkeypatch.setattr(outbox, "RETRY_SECONDS", (3_600.0, 3_600.0, 3_600.0))


def alerts_over(*channels: FakeChannel, monotonic: Callable[[], float] = time.monotonic, footer: str = "") -> ChannelAlerts:
    alerts = ChannelAlerts(LogAlerts(), channels, label="test/primary", footer=footer, monotonic=monotonic)
    alerts.start()
    return alerts


def channel_of(alerts: ChannelAlerts, name: str) -> dict[str, object]:
    found = alerts.counters()["channels"]
    assert isinstance(found, list)
    return next(line for line in found if line["name"] == name)


@pytest.mark.parametrize(
    ("severity", "takers"), [(INFO, ["mail"]), (WARNING, ["mail", "phone"]), (CRITICAL, ["mail", "phone", "siren"])]
)
def test_send_reaches_each_channel_whose_severity_it_has_and_no_other(severity: Severity, takers: list[str]) -> None:
    channels = [FakeChannel("mail", INFO), FakeChannel("phone", WARNING), FakeChannel("siren", CRITICAL)]
    alerts = alerts_over(*channels)
    alerts.send(severity, "Title", "text")
    assert alerts.close()
    assert [channel.name for channel in channels if channel.titles == ["Title"]] == takers
    assert sum(len(channel.seen) for channel in channels) == len(takers)
    wait_for(lambda: all(channel.closed for channel in channels))  # each by its own thread, which `close` waits for a moment


def test_message_names_the_system_its_severity_and_for_critical_ones_whom_to_call() -> None:
    phone = FakeChannel("phone")
    alerts = alerts_over(phone, footer="Call: Asha 123")
    alerts.send(CRITICAL, "NOT FLAT", "5 TCS")
    alerts.send(WARNING, "Loss", "past 50 %")
    alerts.close()
    (_, title, body), (_, _, lesser) = phone.seen
    assert title == "[VELOX test/primary] NOT FLAT"
    assert body.startswith("5 TCS\nCRITICAL, ")
    assert body.endswith("Call: Asha 123")
    assert "Call" not in lesser


def test_failed_channel_is_counted_and_shown_and_the_next_one_gets_the_message(no_pauses: None) -> None:
    mail, phone = FakeChannel("mail", INFO, answers=("away",) * 4), FakeChannel("phone", CRITICAL)
    alerts = alerts_over(mail, phone)
    alerts.send(WARNING, "Loss", "past 50 %")
    assert alerts.close()
    assert phone.titles == ["Loss"]
    assert channel_of(alerts, "mail")["last_failure"] == "away"
    assert channel_of(alerts, "mail")["failing"] is True
    assert channel_of(alerts, "phone")["delivered"] == 1
    assert alerts.counters()["lost"] == 0


def test_message_for_a_failing_channel_goes_to_the_next_one_at_once(long_pauses: None) -> None:
    mail, phone = FakeChannel("mail", INFO, answers=("away",) * 9), FakeChannel("phone", CRITICAL)
    alerts = alerts_over(mail, phone)
    alerts.send(INFO, "first", "")
    wait_for(lambda: phone.titles == ["first"])
    alerts.send(INFO, "second", "")  # mail pauses now
    wait_for(lambda: phone.titles == ["first", "second"])
    assert mail.titles == ["first"]
    alerts.close()


def test_message_that_another_channel_took_does_not_fall_back(no_pauses: None) -> None:
    mail, page, siren = FakeChannel("mail"), FakeChannel("page", answers=("away",) * 4), FakeChannel("siren", CRITICAL)
    page.gate.clear()
    alerts = alerts_over(mail, page, siren)
    alerts.send(WARNING, "Loss", "")
    wait_for(lambda: mail.titles == ["Loss"])
    page.gate.set()
    assert alerts.close()
    assert siren.titles == []


def test_channel_that_failed_tries_again_and_recovers(no_pauses: None) -> None:
    phone = FakeChannel("phone", answers=("away", "away"))
    alerts = alerts_over(phone)
    alerts.send(CRITICAL, "NOT FLAT", "")
    wait_for(lambda: channel_of(alerts, "phone")["delivered"] == 1)
    assert phone.titles == ["NOT FLAT"] * 3
    line = channel_of(alerts, "phone")
    assert (line["failed"], line["failing"], line["last_failure"]) == (2, False, "away")
    alerts.close()


class Breaking(FakeChannel):
    """A channel with a bug: the first delivery and every look at its readiness raise what nobody expects."""

    def warm_up(self) -> str:
        super().warm_up()
        raise KeyError("json://user:hunter2@host")

    def deliver(self, severity: Severity, title: str, body: str) -> str:
        super().deliver(severity, title, body)
        if len(self.seen) == 1:
            raise KeyError("json://user:hunter2@host")
        return ""


def test_channel_that_raises_has_failed_and_its_thread_takes_the_next_message(
    no_pauses: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WARM_UP_SECONDS", 0.01)
    phone = Breaking("phone")
    alerts = alerts_over(phone)
    wait_for(lambda: str(channel_of(alerts, "phone")["last_failure"]).startswith("a fault of this program: KeyError at test_"))
    alerts.send(CRITICAL, "NOT FLAT", "")
    wait_for(lambda: channel_of(alerts, "phone")["delivered"] == 1)
    alerts.send(CRITICAL, "NOT FLAT yet", "")
    assert alerts.close()
    assert phone.titles == ["NOT FLAT", "NOT FLAT", "NOT FLAT yet"]
    wait_for(lambda: phone.closed)
    assert "phone: NOT FLAT: a fault of this program: KeyError at test_outbox.py:" in caplog.text
    assert "hunter2" not in caplog.text


def test_message_that_no_channel_takes_is_given_up_within_bounds_and_logged(
    no_pauses: None, caplog: pytest.LogCaptureFixture
) -> None:
    phone, mail = FakeChannel("phone", answers=("away",) * 50), FakeChannel("mail", answers=("away",) * 50)
    alerts = alerts_over(phone, mail)
    alerts.send(WARNING, "Loss", "")
    wait_for(lambda: alerts.counters()["lost"] == 1)
    alerts.close()
    assert len(phone.seen) == len(mail.seen) == len(outbox.RETRY_SECONDS) + 1
    assert "no channel took the message: Loss" in caplog.text


@pytest.mark.parametrize("severity", [INFO, WARNING])
def test_equal_lesser_messages_that_wait_become_one_with_their_number(severity: Severity) -> None:
    phone = FakeChannel("phone")
    phone.gate.clear()
    alerts = alerts_over(phone)
    alerts.send(severity, "other", "")
    assert phone.entered.wait(120)
    for _ in range(3):
        alerts.send(severity, "same", "text")
    alerts.send(severity, "same", "another text")
    phone.gate.set()
    assert alerts.close()
    assert phone.titles == ["other", "same", "same"]
    assert phone.seen[1][2].endswith("3 times since")
    assert "times" not in phone.seen[2][2]
    assert alerts.counters()["joined"] == 2


def test_repeat_after_the_first_left_waits_for_the_window_and_counts_its_own_repeats() -> None:
    phone, seconds = FakeChannel("phone"), Seconds()
    alerts = alerts_over(phone, monotonic=seconds)
    alerts.send(WARNING, "same", "text")
    wait_for(lambda: len(phone.seen) == 1)
    for _ in range(4):
        alerts.send(WARNING, "same", "text")
    alerts.send(INFO, "later", "")
    wait_for(lambda: phone.titles == ["same", "later"])
    seconds.ahead = outbox.REPEAT_SECONDS
    wait_for(lambda: phone.titles == ["same", "later", "same"])
    assert phone.seen[2][2].endswith("4 times since")
    alerts.close()


def test_critical_messages_are_never_joined() -> None:
    phone = FakeChannel("phone")
    alerts = alerts_over(phone)
    for _ in range(5):
        alerts.send(CRITICAL, "NOT FLAT yet", "5 TCS")
    assert alerts.close()
    assert phone.titles == ["NOT FLAT yet"] * 5


def test_critical_messages_have_room_of_their_own_and_leave_first(caplog: pytest.LogCaptureFixture) -> None:
    phone = FakeChannel("phone")
    phone.gate.clear()
    alerts = alerts_over(phone)
    alerts.send(WARNING, "under way", "")
    assert phone.entered.wait(120)
    for number in range(outbox.LESSER_WAITING_MAX + 3):
        alerts.send(WARNING, f"lesser {number}", "")
    for number in range(outbox.CRITICAL_WAITING_MAX):
        alerts.send(CRITICAL, f"critical {number}", "")
    assert alerts.counters()["dropped"] == 3
    alerts.send(CRITICAL, "one too many", "")
    assert alerts.counters()["dropped"] == 4
    phone.gate.set()
    assert alerts.close()
    assert phone.titles[1 : 1 + outbox.CRITICAL_WAITING_MAX] == [f"critical {n}" for n in range(outbox.CRITICAL_WAITING_MAX)]
    assert phone.titles[1 + outbox.CRITICAL_WAITING_MAX :] == [f"lesser {n}" for n in range(3, outbox.LESSER_WAITING_MAX + 3)]
    assert "one was dropped: one too many" in caplog.text


def test_send_never_waits_for_a_channel_that_hangs_nor_do_the_others() -> None:
    hung, phone = FakeChannel("hung"), FakeChannel("phone")
    hung.gate.clear()
    alerts = alerts_over(hung, phone)
    alerts.send(CRITICAL, "first", "")
    assert hung.entered.wait(120)
    alerts.send(CRITICAL, "second", "")
    wait_for(lambda: phone.titles == ["first", "second"])
    assert hung.seen == []
    assert channel_of(alerts, "hung")["waiting"] == 2
    hung.gate.set()
    assert alerts.close()


def test_close_lets_what_waits_leave_also_what_pauses_or_waits_for_its_window(long_pauses: None) -> None:
    phone = FakeChannel("phone", answers=("", "away"))
    alerts = alerts_over(phone)
    alerts.send(WARNING, "same", "")
    wait_for(lambda: len(phone.seen) == 1)
    alerts.send(CRITICAL, "NOT FLAT", "")
    wait_for(lambda: channel_of(alerts, "phone")["failing"] is True)
    alerts.send(WARNING, "same", "")
    assert alerts.close(120.0)
    assert phone.titles == ["same", "NOT FLAT", "NOT FLAT", "same"]


def test_close_is_bounded_and_says_what_did_not_leave(caplog: pytest.LogCaptureFixture) -> None:
    phone = FakeChannel("phone")
    phone.gate.clear()
    alerts = alerts_over(phone)
    alerts.send(CRITICAL, "NOT FLAT", "")
    assert phone.entered.wait(120)
    assert alerts.close(0.05) is False
    assert phone.killed
    assert "1 deliveries had not succeeded when the process ended" in caplog.text
    wait_for(lambda: phone.closed)
    alerts.send(CRITICAL, "after the end", "")
    assert channel_of(alerts, "phone")["waiting"] == 0


def test_without_channels_nothing_waits_and_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())  # one of another test may be ending still
    alerts = alerts_over()
    with caplog.at_level("INFO"):
        alerts.send(INFO, "Title", "text")
    assert alerts.close()
    assert "ALERT Title: text" in caplog.text
    assert [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("alerts-")] == []


def test_idle_channel_gets_ready_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "WARM_UP_SECONDS", 0.01)
    phone = FakeChannel("phone")
    alerts = alerts_over(phone)
    wait_for(lambda: phone.warm_ups == 1)
    alerts.close()
    assert phone.seen == []


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something another thread does has happened."""
    for _ in range(24_000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")
