"""More than an app can do: important requests pass, others are turned away at once, and reports wait their turn.

    python examples/overload.py

It prints lines to try with a load generator; look at the statuses and at how long the ones with 200 took.
"""

import asyncio

import uvicorn
from fastapi import FastAPI

from apim_middleware import Exchange, LimitConcurrency, LoadShed, Stack, When, conditions
from apim_middleware.policies.load_shed import Priority
from apim_middleware.serving.options import uvicorn_options

database = asyncio.Semaphore(10)  # it does ten things at once; the others wait for it


def importance(exchange: Exchange) -> Priority:
    """Money first; suggestions are the first that nobody misses."""
    if exchange.path.startswith("/payments/"):
        return "critical"
    return "sheddable" if exchange.path.startswith("/suggestions/") else "default"


app = FastAPI()
app.add_middleware(
    Stack(
        When(
            conditions.path("/reports/*"),
            LimitConcurrency(at_once=2, queue=4, wait=5, name="reports"),  # they are slow, and take much memory
            otherwise=LoadShed(priority=importance, retry_after=3),
        )
    )
)


async def query(seconds: float) -> None:
    async with database:
        await asyncio.sleep(seconds)


@app.get("/payments/{number}")
async def payment(number: int) -> dict[str, int]:
    await query(0.02)
    return {"payment": number}


@app.get("/suggestions/{number}")
async def suggestion(number: int) -> dict[str, int]:
    await query(0.02)
    return {"suggestion": number}


@app.get("/reports/{year}")
async def report(year: int) -> dict[str, int]:
    await query(0.2)
    return {"year": year, "orders": 4711}


if __name__ == "__main__":
    print("hey -z 10s -c 200 http://127.0.0.1:8000/suggestions/1   # many 503, the others as quick as ever")
    print("hey -z 10s -c 2 http://127.0.0.1:8000/payments/1        # meanwhile: 200")
    print("hey -n 20 -c 20 http://127.0.0.1:8000/reports/2026      # two at once, four wait, the others get 429")
    uvicorn.run(app, host="127.0.0.1", port=8000, **uvicorn_options())
