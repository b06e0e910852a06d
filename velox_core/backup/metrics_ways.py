"""The ways in which metrics are saved; a part's notes name its way as `method`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from velox_core.backup.faults import BackupError


class Way(StrEnum):
    """How a part's metrics were saved, and so how it is checked and put back."""

    VICTORIA_LINES = "victoria-lines"
    ANNOTATED_CSV = "influx-annotated-csv"  # `influx write` knows by the annotations what is a tag, a field and the time
    PLAIN_CSV = "influx-csv"  # in backups of an older VELOX
    LINE_PROTOCOL = "line-protocol"
    INFLUX2_KV = "influx2-kv"
    INFLUX2_SQL = "influx2-sql"
    INFLUX2_SHARD = "influx2-shard"
    INFLUX2_MANIFEST = "influx2-manifest"


INFLUX2_BACKUP: Final = frozenset({Way.INFLUX2_KV, Way.INFLUX2_SQL, Way.INFLUX2_SHARD, Way.INFLUX2_MANIFEST})

# what a body of another form than is expected makes its readers raise: no UTF-8 and no JSON are ValueErrors
OTHER_FORM: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def authorization(scheme: str, token: str) -> dict[str, str]:
    """Return the header with a token, none for ''. Raises BackupError for one that no header can hold."""
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()):
        raise BackupError("the metrics server's token has characters that no token has", "see VELOX__METRICS__INFLUXDB__TOKEN")
    return {"Authorization": f"{scheme} {token}"}
