"""Alerts from settings: the one place where channels meet their URLs, for every process that tells a person something.

- The engine, the guard, `velox flatten`, the checklist and the tests of channels use `open_alerts` or `alert_channels`.
- A channel without a URL and a URL that cannot be used keep nothing from trading or closing: they are told and shown.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from velox_core.alerts import ChannelAlerts, CourierChannel, LogAlerts
from velox_core.ports import Severity
from velox_core.settings import AlertSettings, ContactSettings, SecretStr, Settings

_NAMED_URL = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})=([A-Za-z][A-Za-z0-9+.-]*://.*)")
HOW_TO_ADD = (
    "give each channel its URL in apprise's form, as VELOX__ALERTS__URLS='phone=tgram://TOKEN/CHAT mail=mailtos://...' "
    "(divided by blanks) or as the list alerts.urls in the file of mode 0600 that system.secrets_path names; its least "
    "severity stands in system.alerts.channels, e.g. {name: phone, minimum_severity: WARNING}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChannel:
    """One channel and its URL; None when it has none."""

    name: str
    minimum_severity: Severity
    url: SecretStr | None


def alert_channels(alerts: AlertSettings) -> tuple[AlertChannel, ...]:
    """Return the channels, in the order of falling back: those of the file, then URLs that belong to none of them.

    `NAME=URL` belongs to its channel. Other URLs go to the channels that have none yet, in order; what is left over is
    called channel-1 and so on.
    """
    named: dict[str, SecretStr] = {}
    unnamed: list[SecretStr] = []
    for secret in alerts.urls:
        match = _NAMED_URL.fullmatch(secret.get_secret_value())
        if match is None or match[1] in named:
            unnamed.append(secret if match is None else SecretStr(match[2]))
        else:
            named[match[1]] = SecretStr(match[2])
    found = []
    for channel in alerts.channels:
        url = named.pop(channel.name, None)
        if url is None and unnamed:
            url = unnamed.pop(0)
        found.append(AlertChannel(name=channel.name, minimum_severity=Severity(channel.minimum_severity.value), url=url))
    usual = Severity(alerts.minimum_severity.value)
    rest = [*named.items(), *((f"channel-{number}", url) for number, url in enumerate(unnamed, start=1))]
    return (*found, *(AlertChannel(name=name, minimum_severity=usual, url=url) for name, url in rest))


def courier(channel: AlertChannel) -> CourierChannel | None:
    """Return what delivers a channel's messages, None when it has no URL."""
    if channel.url is None:
        return None
    return CourierChannel(channel.name, channel.minimum_severity, channel.url.get_secret_value())


@contextmanager
def open_alerts(settings: Settings, *, label: str = "") -> Iterator[ChannelAlerts]:
    """Give the alerts of one process. At the end what waits may leave, within a bound (`outbox.FLUSH_SECONDS_MAX`).

    Args:
        settings: the channels, and whom to call.
        label: what the process is, such as a run id or 'guard'; titles begin with it and the environment.
    """
    channels = alert_channels(settings.alerts)
    for channel in channels:
        if channel.url is None:
            logging.getLogger("velox.system").warning("[ALERT] channel %s has no URL: %s", channel.name, HOW_TO_ADD)
    alerts = ChannelAlerts(
        LogAlerts(),
        [ready for channel in channels if (ready := courier(channel)) is not None],
        label=" ".join(part for part in (f"{settings.environment}/{settings.account}", label) if part),
        footer=_footer(settings.contacts),
    )
    alerts.start()
    try:
        yield alerts
    finally:
        alerts.close()


def _footer(contacts: ContactSettings) -> str:
    people = " ".join(part for part in (contacts.name, contacts.phone) if part)
    parts = [f"Call: {people}" if people else "", f"Broker's desk: {contacts.broker_desk}" if contacts.broker_desk else ""]
    return ". ".join(part for part in parts if part)
