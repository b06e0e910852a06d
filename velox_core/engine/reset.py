"""A reset that is asked of the running engine: it alone knows its books, so it alone clears while it runs.

- The answer stands in the status under the id of the request, until the next one: cleared ids, or why not and the exit code.
- A LOSS halt of the engine's own date is never cleared here: the end of day does it.
"""

from __future__ import annotations

from velox_core.domain.errors import EXIT_DONE, VeloxError
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.ports import ControlRequest


def answer_reset(emergency: EmergencyExitManager, request: ControlRequest, now_ms: int) -> dict[str, object]:
    """Clear the active halts, or say why not. Never raises an operating error."""
    cleared: list[str] = []
    code, message = EXIT_DONE, ""
    try:
        cleared = [record.clears for record in emergency.reset(request.reason, request.by, now_ms, session_over=False)]
    except VeloxError as error:
        code, message = error.exit_code, str(error)
    return {"request_id": request.request_id, "cleared": cleared, "exit_code": code, "message": message}
