"""The work pool and its queues, where they are absent: `python -m deployments.work_pool`, at the server of PREFECT_API_URL."""

from __future__ import annotations

import asyncio
import sys

from prefect import get_client

from deployments.registration import ensure_work_pool


async def _main() -> list[str]:
    async with get_client() as client:
        return await ensure_work_pool(client)


if __name__ == "__main__":
    made = asyncio.run(_main())
    sys.stdout.write(f"made: {', '.join(made)}\n" if made else "the work pool and its queues are there\n")
