"""`velox explain`: why each signal was approved or refused, layer by layer, and what would have passed.

- The verdict is the journal's. The layers that were not asked any more are asked again here, by the gate's own functions
  on what was known at that moment, so that one sees whether another would have refused too.
- Where that state cannot be worked out again, only the journal's own verdict is shown, and it is said so.
- Money is paise, times epoch milliseconds of engine time; sentences are for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from velox_core.domain.errors import JournalUnavailable, VeloxError
from velox_core.domain.events import JournalEvent
from velox_core.domain.time import ist_clock_text
from velox_core.journal.database import open_database
from velox_core.journal.queries import JournalReader
from velox_core.operations.decision_history import Judged, journaled_limits, journaled_request, judged_decisions
from velox_core.operations.journal_bodies import int_of, object_of, text_of
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.remedies import Later, layer_numbers, precondition_remedy, remedy
from velox_core.operations.report import LAYER_NAMES
from velox_core.risk.layers import LAYERS, ReasonCode
from velox_core.run_stores import journal_url
from velox_core.settings import Settings

PRECONDITIONS: Final = 0
PASSED, REFUSED, NOT_ASKED = "passed", "REFUSED", "not asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions are asked for; None takes all. `layer` 0 is the preconditions; `identity` a sequence or an order id."""

    symbol: str | None = None
    strategy: str | None = None
    layer: int | None = None
    identity: str | None = None

    def takes(self, event: JournalEvent) -> bool:
        """Return whether a decision is among them."""
        body = event.body
        return (
            (self.symbol is None or text_of(body, "symbol") == self.symbol)
            and (self.strategy is None or text_of(body, "strategy") == self.strategy)
            and (self.layer is None or (body.get("approved") is not True and int_of(body, "layer") == self.layer))
            and (self.identity is None or self.identity in (str(event.sequence), text_of(body, "client_order_id")))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerVerdict:
    """What one layer said, or would have said: `verdict` is 'passed', 'REFUSED' or 'not asked'; `numbers` is for people."""

    layer: int
    name: str
    verdict: str
    numbers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedDecision:
    """One decision, explained. `would_have_passed` is '' for an approval, `note` what is uncertain ('' = nothing)."""

    id: int
    ts_ms: int
    time: str
    strategy: str
    symbol: str
    side: str
    kind: str
    asked: int
    quantity: int
    approved: bool
    layer: int
    code: str
    reason: str
    signal_reason: str
    client_order_id: str
    order: str
    would_have_passed: str
    note: str
    layers: list[LayerVerdict]
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What was asked for of a run: counts over all decisions that match, and the last of them explained."""

    run_id: str
    trading_date: str
    synthetic_note: str
    note: str
    matching: int
    approved_entries: int
    approved_exits: int
    refused_by_layer: dict[int, int]
    refused_by_code: dict[str, int]
    decisions: list[ExplainedDecision]
    strategies: list[str] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        body = asdict(self)
        body["refused_by_layer"] = [
            {"layer": layer, "name": name, "refused": self.refused_by_layer.get(layer, 0)}
            for layer, name in LAYER_NAMES.items()
        ]
        return body


def explain_run(settings: Settings, recorded: RecordedRun, wanted: DecisionFilter, *, shown_max: int) -> Explanation:
    """Explain the decisions of a run that is on record; beside a running engine, too. Nothing is written.

    Raises: JournalUnavailable; VeloxError when `wanted.identity` names no decision of the run.
    """
    url = journal_url(settings, recorded.run)
    open_database(url, create=False).dispose()  # an older journal is migrated, and then read
    with closing(JournalReader(url)) as reader:
        begun = reader.latest_run(recorded.trading_date, scope_key=recorded.run.scope.key)
        if begun is None or begun.run_key is None:
            raise JournalUnavailable(f"the journal of run {recorded.run.run_id} does not know the run: restore a backup of it")
        events = reader.events(begun.run_key)
    changed = begun.config_hash != settings.config_hash
    explanation = explain_events(events, settings, wanted, shown_max=shown_max, config_changed=changed)
    if wanted.identity is not None and not explanation["decisions"]:
        raise VeloxError(f"run {recorded.run.run_id} has no decision {wanted.identity}; leave out --id to see which there are")
    source = begun.data_source
    return Explanation(
        run_id=recorded.run.run_id,
        trading_date=recorded.trading_date.isoformat(),
        synthetic_note=source if "synthetic" in source.lower() else "",
        **explanation,
    )


def explain_events(
    events: Sequence[JournalEvent], settings: Settings, wanted: DecisionFilter, *, shown_max: int, config_changed: bool
) -> dict[str, Any]:
    """Return the fields of an `Explanation` that come from the journal's events."""
    later = Later(events)
    counts = _Counts()
    judged = []
    for decision in judged_decisions(events):
        counts.known(decision.event)
        if wanted.takes(decision.event):
            counts.take(decision)
            judged.append(decision)
    note = "The configuration has changed since: the dedup window and the hours named are today's." if config_changed else ""
    shown = [_explain(decision, settings, later) for decision in judged[-shown_max:]]
    return {
        "note": note,
        "matching": len(judged),
        "approved_entries": counts.entries,
        "approved_exits": counts.exits,
        "refused_by_layer": dict(sorted(counts.layers.items())),
        "refused_by_code": dict(sorted(counts.codes.items())),
        "decisions": shown,
        "strategies": sorted(counts.strategies),
        "symbols": sorted(counts.symbols),
    }


class _Counts:
    """What the decisions add up to."""

    def __init__(self) -> None:
        self.entries = self.exits = 0
        self.layers: Counter[int] = Counter()
        self.codes: Counter[str] = Counter()
        self.strategies: set[str] = set()
        self.symbols: set[str] = set()

    def known(self, event: JournalEvent) -> None:
        self.strategies.add(text_of(event.body, "strategy"))
        self.symbols.add(text_of(event.body, "symbol"))

    def take(self, judged: Judged) -> None:
        if judged.body.get("approved") is True:
            self.entries += judged.is_entry
            self.exits += not judged.is_entry
        else:
            self.layers[int_of(judged.body, "layer")] += 1
            self.codes[text_of(judged.body, "code")] += 1


def _explain(judged: Judged, settings: Settings, later: Later) -> ExplainedDecision:
    body, approved = judged.body, judged.body.get("approved") is True
    passing = note = ""
    layers: list[LayerVerdict] = []
    if judged.is_entry:
        layers, agreed = _layers(judged, settings)
        passing = "" if approved else _would_pass(judged, settings, later, layers)
        if not agreed and int_of(body, "quantity"):  # a signal of no quantity was refused before it was judged
            note = "what else was known then cannot be worked out from the journal; only its own verdict is shown"
    elif not approved:
        passing = precondition_remedy(text_of(body, "code"), settings, later, judged)
    texts = ("strategy", "symbol", "side", "kind", "code", "reason", "signal_reason", "client_order_id")
    return ExplainedDecision(
        id=judged.event.sequence,
        ts_ms=judged.event.ts_ms,
        time=ist_clock_text(judged.event.ts_ms),
        approved=approved,
        asked=int_of(body, "asked"),
        quantity=int_of(body, "quantity"),
        layer=int_of(body, "layer"),
        order=later.order_text(text_of(body, "client_order_id")),
        would_have_passed=passing,
        note=note,
        layers=layers,
        numbers=dict(object_of(body, "numbers")),
        **{name: text_of(body, name) for name in texts},
    )


def _layers(judged: Judged, settings: Settings) -> tuple[list[LayerVerdict], bool]:
    """Return every layer's verdict, and whether those worked out again agree with the journal's."""
    refused_at = -1 if judged.body.get("approved") is True else int_of(judged.body, "layer")
    reason = text_of(judged.body, "reason")
    verdicts = [
        LayerVerdict(
            layer=PRECONDITIONS,
            name=LAYER_NAMES[PRECONDITIONS],
            verdict=REFUSED if refused_at == PRECONDITIONS else PASSED,
            numbers=reason if refused_at == PRECONDITIONS else "",
        )
    ]
    request, limits = journaled_request(judged), journaled_limits(judged, settings.risk.limits)
    agreed = judged.is_complete and request.quantity > 0
    for number, layer in enumerate(LAYERS, start=1):
        was_asked = refused_at < 0 or number <= refused_at
        text = ""
        if agreed:
            again = layer(request, judged.known, limits)
            agreed = (again is not None) == (number == refused_at) if was_asked else True
            text = layer_numbers(number, request, judged.known, limits)
            if not was_asked:
                text = f"would have {'passed' if again is None else 'REFUSED'}: {text}"
        if not agreed:
            text = reason if number == refused_at else ""
        verdict = REFUSED if number == refused_at else PASSED if was_asked else NOT_ASKED
        verdicts.append(LayerVerdict(layer=number, name=LAYER_NAMES[number], verdict=verdict, numbers=text))
    never_reached_the_gate = refused_at == PRECONDITIONS and request.quantity == 0  # a trade rule; there is nothing to work out
    return verdicts, agreed or never_reached_the_gate


def _would_pass(judged: Judged, settings: Settings, later: Later, layers: Sequence[LayerVerdict]) -> str:
    """Return what this refusal would have taken to pass, and whether a later layer would have refused all the same."""
    number = int_of(judged.body, "layer")
    if number == PRECONDITIONS:
        sentence = precondition_remedy(text_of(judged.body, "code"), settings, later, judged)
    elif judged.is_complete:
        sentence = remedy(
            number, journaled_request(judged), judged.known, journaled_limits(judged, settings.risk.limits), later
        )
    else:
        sentence = ""
    next_one = next((layer for layer in layers if layer.numbers.startswith("would have REFUSED")), None)
    if sentence and next_one is not None:
        sentence += f"; layer {next_one.layer} ({next_one.name}) would have refused too"
    return sentence


def parse_layer(text: str) -> int:
    """Return a layer's number from '0' to '7', a layer's name or a reason code. Raises ValueError with what is allowed."""
    wanted = text.strip().lower().replace("_", " ")
    for number, name in LAYER_NAMES.items():
        if wanted in (str(number), name.lower()):
            return number
    by_code = {code.value.lower().replace("_", " "): number for code, number in CODE_LAYERS.items()}
    if wanted in by_code:
        return by_code[wanted]
    names = ", ".join(f"{number} ({name})" for number, name in LAYER_NAMES.items())
    raise ValueError(f"{text!r} is no layer; choose one of {names}")


CODE_LAYERS: Final = {
    ReasonCode.EMERGENCY_EXIT_ACTIVE: 1,
    ReasonCode.DUPLICATE_ORDER: 2,
    ReasonCode.POSITION_EXISTS: 3,
    ReasonCode.POSITION_SIZE: 4,
    ReasonCode.STRATEGY_POSITIONS: 5,
    ReasonCode.TOTAL_POSITIONS: 6,
    ReasonCode.DAILY_LOSS: 7,
}
