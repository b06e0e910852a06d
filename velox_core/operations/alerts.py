"""Channels to a person: which there are, and whether a test message gets through."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from velox_core.alert_setup import HOW_TO_ADD, AlertChannel, alert_channels, courier
from velox_core.domain.errors import ConfigError
from velox_core.ports import Severity
from velox_core.settings import Settings

NO_CHANNELS: Final = f"no alert channel is configured: nobody is told of an emergency but by the log. To add one, {HOW_TO_ADD}"
TEST_TEXT: Final = "A test of this channel. Nothing has happened, and nothing is to be done."


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTest:
    """What came of a test message; `why` is '' when the channel took it."""

    name: str
    minimum_severity: Severity
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"name": self.name, "minimum_severity": self.minimum_severity.value, "ok": not self.why, "why": self.why}


def channel_lines(settings: Settings) -> list[dict[str, Any]]:
    """Return each channel as plain values; of its URL only whether it is set."""
    return [
        {"name": channel.name, "minimum_severity": channel.minimum_severity.value, "url_set": channel.url is not None}
        for channel in alert_channels(settings.alerts)
    ]


def try_channels(settings: Settings, only: str | None) -> list[ChannelTest]:
    """Send a test message to every channel, or to one by its name, side by side; within their bounds (40 s).

    Raises: ConfigError when none is configured, or none has the name.
    """
    channels = alert_channels(settings.alerts)
    if not channels:
        raise ConfigError(NO_CHANNELS)
    chosen = [channel for channel in channels if only in (None, channel.name)]
    if not chosen:
        raise ConfigError(f"no alert channel is called {only!r}; there are {', '.join(channel.name for channel in channels)}")
    title = f"[VELOX {settings.environment}/{settings.account}] Test message"
    with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
        return list(pool.map(lambda channel: _try(channel, title), chosen))


def _try(channel: AlertChannel, title: str) -> ChannelTest:
    ready = courier(channel)
    if ready is None:
        why = f"it has no URL: {HOW_TO_ADD}"
    else:
        why = ready.deliver(Severity.INFO, title, TEST_TEXT)
        ready.close()
    return ChannelTest(name=channel.name, minimum_severity=channel.minimum_severity, why=why)
