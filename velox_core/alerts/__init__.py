"""Messages to a person: the log always, and the channels that are configured, behind the port `Alerts`."""

from velox_core.alerts.courier_process import CourierChannel
from velox_core.alerts.log import RECENT_ALERTS_MAX, Alert, LogAlerts
from velox_core.alerts.outbox import Channel, ChannelAlerts

__all__ = ["RECENT_ALERTS_MAX", "Alert", "Channel", "ChannelAlerts", "CourierChannel", "LogAlerts"]
