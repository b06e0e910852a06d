"""What one value of a configuration may be: a conversion to inside units, and the sentence that says what is allowed.

- A `Rule` stands in the annotation of a schema field; pydantic calls it, and error messages quote it.
- Conversions are exact: rupees to paise, percent to basis points, seconds to milliseconds; what does not divide
  evenly is refused, never rounded.
- Nothing is coerced: text is not a number, a number is not text, true is not 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from velox_core.domain.urls import may_hold_password

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

RUPEES_MAX = 10**12
TEXT_LENGTH_MAX = 500
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
SYMBOL_PATTERN = r"[A-Z0-9][A-Z0-9&_-]{0,31}"
CLASS_PATH_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"
FILE_PATTERN = r"[^:]+\.py(:[A-Za-z_][A-Za-z0-9_]*)?"
MARKET_OPENS = time(9, 15)
MARKET_CLOSES = time(15, 30)


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of value.

    Attributes:
        allowed: what is allowed, as a person reads it after "allowed is".
        convert: returns the value in inside units; raises ValueError for anything else.
        wants_text: whether it takes text; messages then advise on quotes.
        hides_value: whether a refused value may hold a secret and must not be shown.
    """

    allowed: str
    convert: Callable[[object], object]
    wants_text: bool = False
    hides_value: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Make pydantic validate by `convert`, strictly, with `allowed` as the message."""
        from pydantic_core import PydanticCustomError, core_schema

        def validate(value: object) -> object:
            try:
                return self.convert(value)
            except ValueError:
                raise PydanticCustomError("rule", "not allowed") from None

        return core_schema.no_info_plain_validator_function(validate)


def scaled(what: str, least: str, most: str, *, scale: int, decimals: int) -> Rule:
    """Take a number of `what` between `least` and `most`, both included, and return it times `scale`, an exact int."""

    def convert(value: object) -> int:
        number = _decimal(value)
        if not Decimal(least) <= number <= Decimal(most):
            raise ValueError(f"{value!r} is out of range")
        if number * scale != int(number * scale):
            raise ValueError(f"{value!r} is too fine")
        return int(number * scale)

    return Rule(f"{what} from {least} to {most}, with at most {decimals} decimals", convert)


def whole(what: str, least: int, most: int) -> Rule:
    """Take a whole number of `what` between `least` and `most`, both included."""

    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{value!r} is out of range")
        return value

    return Rule(f"a whole number of {what} from {least} to {most}", convert)


def fraction(what: str) -> Rule:
    """Take a number from 0 to 1."""

    def convert(value: object) -> float:
        number = _decimal(value)
        if not 0 <= number <= 1:
            raise ValueError(f"{value!r} is out of range")
        return float(number)

    return Rule(f"{what} from 0 to 1", convert)


def flag() -> Rule:
    """Take true or false."""

    def convert(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is not a flag")
        return value

    return Rule("true or false", convert)


def always_true(reason: str) -> Rule:
    """Take true and nothing else."""

    def convert(value: object) -> bool:
        if value is not True:
            raise ValueError(f"{value!r} is not true")
        return True

    return Rule(f"true, always ({reason})", convert)


def text(allowed: str, pattern: str | None = None, *, empty: bool = False) -> Rule:
    """Take one line of printable text, which the whole `pattern` must match; empty text only when `empty`."""

    def convert(value: object) -> str:
        line = _line(value, empty=empty)
        if pattern is not None and not re.fullmatch(pattern, line):
            raise ValueError(f"{value!r} does not match")
        return line

    return Rule(allowed, convert, wants_text=True)


def choice(kind: type[StrEnum]) -> Rule:
    """Take one of the enum's values."""
    values = [member.value for member in kind]

    def convert(value: object) -> StrEnum:
        if not isinstance(value, str) or value not in values:
            raise ValueError(f"{value!r} is not one of {values}")
        return kind(value)

    return Rule(f"one of {', '.join(values)}", convert, wants_text=True)


def time_of_day() -> Rule:
    """Take `HH:MM` within the market's day, quoted in the file or not."""

    def convert(value: object) -> time:
        match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{value!r} is not a time")
        moment = time(int(match[1]), int(match[2]))
        if not MARKET_OPENS <= moment <= MARKET_CLOSES:
            raise ValueError(f"{value!r} is outside the market's day")
        return moment

    return Rule("a time of day as HH:MM, IST, from 09:15 to 15:30", convert)


def replay_speed() -> Rule:
    """Take `max` (returned as 0.0) or a finite number above 0."""

    def convert(value: object) -> float:
        if value == "max":
            return 0.0
        number = _decimal(value)
        if not 0 < number <= 1_000_000:
            raise ValueError(f"{value!r} is out of range")
        return float(number)

    return Rule("max, or a number above 0 up to 1000000 (1.0 is true time)", convert)


def address(schemes: Collection[str], *, optional: bool = False, folder: bool = False) -> Rule:
    """Take a URL of one of `schemes` without a password in it.

    Args:
        schemes: the schemes that are taken; empty takes any.
        optional: null is taken too, and returned as None.
        folder: a plain folder path is taken too.
    """
    shown = f"a URL ({', '.join(f'{scheme}://' for scheme in schemes)})" if schemes else "a URL"
    allowed = f"{'a folder or ' if folder else ''}{shown} with no password in it{', or null' if optional else ''}"

    def convert(value: object) -> str | None:
        if value is None and optional:
            return None
        line = _line(value)
        if "://" not in line:
            if folder:
                return line
            raise ValueError("not a URL")
        parts = urlsplit(line)
        if not (parts.netloc or parts.path) or (schemes and parts.scheme not in schemes):
            raise ValueError("not a URL of these schemes")
        if "::" in line.partition("://")[0]:
            raise ValueError("a chain of systems")
        if may_hold_password(line) or any(SECRET_NAME.search(name) for name, _ in parse_qsl(parts.query)):
            raise ValueError("a password in a URL")
        return line

    return Rule(allowed, convert, wants_text=True, hides_value=True)


def optional(rule: Rule) -> Rule:
    """Take null too, and return it as None."""

    def convert(value: object) -> object:
        return None if value is None else rule.convert(value)

    return Rule(f"{rule.allowed}, or null", convert, rule.wants_text, rule.hides_value)


def parameter() -> Rule:
    """Take one strategy parameter: a finite number, a flag or a line of text."""

    def convert(value: object) -> int | float | str | bool:
        if isinstance(value, bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        return _line(value, empty=True)

    return Rule("a finite number, true, false or one line of text", convert, wants_text=True)


SECRET_NAME = re.compile(r"pass|pwd|secret|token|credential|api_?key|auth|pin$|totp|private", re.IGNORECASE)
"""Names whose values are never shown in a message."""


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    number = Decimal(repr(value))  # a float through its shortest text, so that 2000.05 is exact
    if not number.is_finite():
        raise ValueError(f"{value!r} is not finite")
    return number


def _line(value: object, *, empty: bool = False) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX or not value.isprintable():
        raise ValueError(f"{value!r} is not a line of text")
    if not empty and not value.strip():
        raise ValueError("empty text")
    return value
