from __future__ import annotations

import threading
from pathlib import Path

from velox_core.domain.errors import VeloxError
from velox_core.operations.json_file import read_json, write_json

WRITES = 50


def test_file_that_two_threads_write_at_once_is_always_whole_and_refused_to_neither(tmp_path: Path) -> None:
    path, wrong = tmp_path / "told.json", []
    write_json(path, {"told": []})

    def write(name: str) -> None:
        for number in range(WRITES):
            try:
                write_json(path, {"told": [name] * (number + 1)})
            except VeloxError as error:
                wrong.append(str(error))
            if not read_json(path):
                wrong.append("torn")

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert wrong == []
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
