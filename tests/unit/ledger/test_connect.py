"""Addresses of a ledger: what is refused before anything is sent, and that no password is ever shown."""

from __future__ import annotations

from datetime import date

import pytest

from velox_core.domain.errors import LedgerUnavailable
from velox_core.ledger.connect import explain, place_of
from velox_core.ledger.redis import RedisLedger


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://host/0", "redis://host:port/0", "unix"])
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(LedgerUnavailable, match=r"stores\.redis\.url"):
        RedisLedger(url, "simulated:primary", date(2024, 1, 15))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://user:hunter2@host:6380/1", "Redis at host:6380/1"),
        ("rediss://:hunter2@host", "Redis at host:6379"),
        ("unix://user:hunter2@/run/redis.sock", "Redis at /run/redis.sock"),
    ],
)
def test_place_for_people_has_no_password(url: str, place: str) -> None:
    assert place_of(url) == place


def test_explain_says_something_even_without_an_error() -> None:
    assert explain("Redis at x", None).startswith("Redis at x: no answer")
