"""What the second layers do: an alert for somebody else's sake, and the question whether there is anything left to flatten.

- The first layers are the engine's own emergency exit, the guard, and the alerts that each process sends by itself.
"""

from __future__ import annotations

from velox_core.alert_setup import alert_channels, open_alerts
from velox_core.domain.errors import VeloxError
from velox_core.operations.recorded import find_run
from velox_core.operations.run_logs import open_logs
from velox_core.ports import Severity
from velox_core.runs import RunState
from velox_core.settings import Paths, Settings

LABEL = "automation"


def tell(settings: Settings, paths: Paths, severity: Severity, title: str, text: str) -> str:
    """Send one alert to the system log and to every channel, within the channels' bounds; returns what became of it.

    Raises: VeloxError when neither the log could be written nor a channel took it.
    """
    try:
        logs = open_logs(settings, paths, rotates=False, is_engine=False)
    except VeloxError as error:
        logs, no_log = None, str(error)
    else:
        no_log = ""
    try:
        with open_alerts(settings, label=LABEL) as alerts:
            alerts.send(severity, title, text)
        counted = alerts.counters()
    finally:
        if logs is not None:
            logs.stop()
    channels = len([channel for channel in alert_channels(settings.alerts) if channel.url is not None])
    if no_log and not counted["delivered"]:
        raise VeloxError(f"nobody was told {title!r}: {no_log}, and {channels} channels delivered nothing")
    return f"{'log' if not no_log else 'no log'}, {counted['delivered']} deliveries over {channels} channels"


def already_closed(settings: Settings, paths: Paths, run_id: str) -> str:
    """Return '' unless the end of day has proven a run flat by the broker's word and closed its books; else that sentence.

    A run that cannot be found or read is not closed.
    """
    try:
        recorded = find_run(settings, paths, run_id=run_id, advise_to_run=False)
    except VeloxError:
        return ""
    if recorded.run.state is not RunState.CLOSED:
        return ""
    return f"the end of day has proven run {run_id} flat by the broker's word and closed its books: nothing is left to flatten"
