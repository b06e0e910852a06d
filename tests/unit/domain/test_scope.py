"""Scopes: keys and folders that keep worlds apart."""

from __future__ import annotations

import itertools

import pytest

from velox_core.domain.scope import Scope


def test_scope_real_day_is_named_by_broker_and_account() -> None:
    scope = Scope(broker_type="zerodha", account="primary")
    assert scope.key == "zerodha:primary"
    assert scope.folder == "zerodha/primary"


def test_scope_replay_carries_its_run_id() -> None:
    scope = Scope(broker_type="simulated", account="primary", run_id="2024-01-16-crash-1")
    assert scope.key == "simulated:primary:2024-01-16-crash-1"
    assert scope.folder == "replay/primary/2024-01-16-crash-1"


def test_scope_different_worlds_never_share_key_or_folder() -> None:
    scopes = [
        Scope(broker_type=broker, account=account, run_id=run_id)
        for broker, account, run_id in itertools.product(
            ("simulated", "zerodha", "upstox"), ("primary", "second"), ("", "2024-01-15-1", "2024-01-15-2")
        )
        if broker == "simulated" or not run_id
    ]
    assert len({scope.key for scope in scopes}) == len(scopes)
    assert len({scope.folder for scope in scopes}) == len(scopes)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "../x", ".hidden", "-x", "a" * 65, "a\n", "ä"])
@pytest.mark.parametrize("field", ["broker_type", "account", "run_id"])
def test_scope_name_with_other_characters_is_refused(field: str, name: str) -> None:
    values = {"broker_type": "simulated", "account": "primary", "run_id": "2024-01-15-1", field: name}
    if field == "run_id" and name == "":
        assert Scope(**values).run_id == ""
        return
    with pytest.raises(ValueError, match=f"{field.replace('_', ' ')} "):
        Scope(**values)


def test_scope_longest_name_is_accepted() -> None:
    assert Scope(broker_type="simulated", account="a" * 64).account == "a" * 64
