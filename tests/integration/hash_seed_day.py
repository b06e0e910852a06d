"""One synthetic day in a process of its own: `python -m tests.integration.hash_seed_day CONFIG VAR` prints its export."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from velox_core.bootstrap import RunRequest, run_engine
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.journal.export import export_events
from velox_core.journal.queries import JournalReader
from velox_core.ledger.redis import RedisLedger
from velox_core.settings import Paths, load_settings
from velox_core.strategies.base import Strategy, StrategySession

DAY = date(2024, 1, 16)
STOP_BPS = 20


class BuyEverything(Strategy):
    """Buys every symbol that it does not hold, with a stop so near that falling prices reach many in one minute."""

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        super().__init__(strategy_id, parameters)
        self.session: StrategySession | None = None

    def start_session(self, session: StrategySession) -> None:
        """Keep the universe."""
        self.session = session

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Ask for what is missing, every fifth minute."""
        if self.session is None or (ts_ms // 60_000) % 5:
            return []
        signals = []
        for column in self.session.columns:
            price = row.closes[column]
            if price and not positions[column]:
                stop = price - price * STOP_BPS // 10_000
                signal = Signal(
                    self.strategy_id, self.session.universe[column], Side.BUY, 1, SignalKind.ENTRY, "missing", stop_paise=stop
                )
                signals.append(signal)
        return signals


def main() -> int:
    """Run the day and write its journal's export to standard output."""
    config, var = Path(sys.argv[1]), Path(sys.argv[2])
    paths = Paths(var=var, logs=var / "logs")
    RedisLedger.__init__.__kwdefaults__["timeout_seconds"] = 60.0  # a busy machine is no store that hangs
    outcome = run_engine(load_settings(config, {}), paths, RunRequest(date=DAY, speed=0.0, scenario="crash", fresh=True))
    reader = JournalReader(f"sqlite:///{outcome.run.folder / 'journal.db'}")
    run = reader.latest_run(DAY)
    if run is None or run.run_key is None:
        return 1
    sys.stdout.buffer.write(export_events(reader.events(run.run_key)))
    reader.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
