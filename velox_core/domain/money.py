"""Money as integer paise.

- Inside, every price and amount is an `int` of paise (1 rupee = 100 paise).
- Text, Decimal and floats from outside enter through `paise_from_rupees` and leave through `rupees_text`.
- Rounding is explicit: half up on the magnitude, or always against us (`ceil_div`).
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

PAISE_PER_RUPEE = 100
_RUPEES_MAX = 10**15  # beyond any account; its paise are inside int64
_PAISA = Decimal("0.01")


def paise_from_rupees(amount: str | int | float | Decimal) -> int:
    """Turn rupees into paise, rounding half up at the third decimal.

    Args:
        amount: rupees; a float is read through its shortest decimal text, so 3902.05 is exact.
    Returns: int paise.
    Raises: ValueError when the amount is not a finite number or is beyond 10^15 rupees.
    """
    if isinstance(amount, bool):
        raise ValueError(f"{amount!r} is not an amount of rupees")
    try:
        value = Decimal(str(amount).strip())
    except InvalidOperation:
        raise ValueError(f"{amount!r} is not an amount of rupees") from None
    if not value.is_finite():
        raise ValueError(f"{amount!r} is not a finite amount of rupees")
    if value.copy_abs() > _RUPEES_MAX:
        raise ValueError(f"{amount!r} rupees is beyond what any account holds")
    return int(value.quantize(_PAISA, rounding=ROUND_HALF_UP) * PAISE_PER_RUPEE)


def rupees_text(paise: int) -> str:
    """Write paise as rupees with two decimals and no grouping: -215000 -> '-2150.00'."""
    sign = "-" if paise < 0 else ""
    rupees, rest = divmod(abs(paise), PAISE_PER_RUPEE)
    return f"{sign}{rupees}.{rest:02d}"


def rupees_display(paise: int) -> str:
    """Write paise for a person, in Indian grouping: 12345678900 -> '₹12,34,56,789.00'."""
    sign = "-" if paise < 0 else ""
    rupees, rest = divmod(abs(paise), PAISE_PER_RUPEE)
    digits = str(rupees)
    head, tail = digits[:-3], digits[-3:]
    groups = [tail]
    while head:
        groups.append(head[-2:])
        head = head[:-2]
    return f"{sign}₹{','.join(reversed(groups))}.{rest:02d}"


def rupees_decimal(paise: int) -> Decimal:
    """Return paise as an exact Decimal of rupees."""
    return Decimal(paise) / PAISE_PER_RUPEE


def round_half_up_div(numerator: int, denominator: int) -> int:
    """Divide integers, rounding half away from zero. `denominator` is positive."""
    if numerator >= 0:
        return (2 * numerator + denominator) // (2 * denominator)
    return -((-2 * numerator + denominator) // (2 * denominator))


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide integers, rounding up. `denominator` is positive."""
    return -(-numerator // denominator)
