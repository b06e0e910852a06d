"""A server that drips is left when its time is over, wherever in its answer it drips, and nothing of it is taken for whole."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.dripping import SHAPES, dripping
from tests.fakes.threads import join_named
from velox_core.backup import influx2, influx3, metrics_export
from velox_core.backup.influx2 import Bucket, save_bucket
from velox_core.backup.manifest import BackupError
from velox_core.domain.time import IST
from velox_core.metrics.server import Flavour
from velox_core.operations import metrics_backup
from velox_core.settings import InfluxSettings, MetricsFlavour

BOUND_SECONDS = 0.4
DAY = date(2024, 1, 15)


def backs_up(url: str, folder: Path) -> None:
    list(save_bucket(Bucket(url=url, org="o", bucket="b", token="t0ken"), folder, wall_seconds=0.0))


def exports(url: str, folder: Path) -> None:
    metrics_export.export_day(
        folder / "day", flavour=Flavour.VICTORIA, url=url, org="o", bucket="b", token="t0ken", tags={}, day=DAY
    )


def asks_in_sql(url: str, folder: Path) -> None:
    begin = datetime(2024, 1, 15, tzinfo=IST)
    span = (begin, begin + timedelta(days=1))
    influx3.write_process_points(io.StringIO(), url=url, database="b", token="t0ken", tags={}, span=span)


def told_in_time(call: Callable[[str, Path], None], shape: str, folder: Path) -> str:
    """Return what a call says of a server that drips; one that hangs ends with the server, in a minute, and says that."""
    with ThreadPoolExecutor(1) as beside, dripping(shape) as url:
        asked = beside.submit(call, url, folder)
        return str(asked.exception(60))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", [backs_up, exports, asks_in_sql])
def test_server_that_drips_is_left_when_its_time_is_over(
    call: Callable[[str, Path], None], shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (influx2, influx3, metrics_export):
        monkeypatch.setattr(module, "TOTAL_SECONDS_MAX", BOUND_SECONDS)
    said = told_in_time(call, shape, tmp_path)
    assert "the metrics server at http://127.0.0.1:" in said
    assert "the server is too slow, it was left after 0." in said
    assert "look at its load" in said
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_one_request_of_a_backup_has_a_bound_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx2, "REQUEST_SECONDS_MAX", BOUND_SECONDS)
    assert "it was left after 0.4 s" in told_in_time(backs_up, "header", tmp_path)


def test_question_which_server_it_is_that_fails_as_nobody_expects_is_told_to_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: InfluxSettings) -> Flavour:
        raise RuntimeError("a bug")

    monkeypatch.setattr(metrics_backup, "_flavour_it_says", broken)
    influx = InfluxSettings(enabled=True, url="http://127.0.0.1:9", org="o", bucket="b", flavour=MetricsFlavour.AUTO)
    with pytest.raises(RuntimeError, match="a bug"):
        metrics_backup._flavour(influx)


def test_server_that_drips_when_it_is_asked_which_one_it_is_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_backup, "FLAVOUR_SECONDS_MAX", BOUND_SECONDS)
    with dripping("header") as url, pytest.raises(BackupError, match=r"did not say in 0\.4 s which one it is: look at it"):
        metrics_backup._flavour(InfluxSettings(enabled=True, url=url, org="o", bucket="b", flavour=MetricsFlavour.AUTO))
    join_named("backup-metrics-flavour")  # it ends with the server
