"""The ways in which metrics are saved; a part's notes name its way as `method`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


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
