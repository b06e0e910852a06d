"""Addresses as people write them, and whether they may be shown."""

from __future__ import annotations


def may_hold_password(url: str) -> bool:
    """Return whether a URL may have a password in it.

    Nothing is parsed: a password with '/', '?' or '#' in it ends, for a parser, before its '@'. So a URL may hold
    one where a ':' stands before an '@', anywhere behind the '//'.
    """
    colon = url.partition("//")[2].partition(":")
    return bool(colon[1]) and "@" in colon[2]
