"""Limits on guessing, on bursts by plan, on bytes, and on what a customer bought; the last three are one decision.

    python examples/rate_limits.py

It prints two keys and the curl lines to try; look at ``ratelimit``, ``ratelimit-policy`` and ``retry-after``.
"""

import uvicorn
from fastapi import FastAPI

from apim_middleware import (
    APIKeyAuth,
    Exchange,
    Limits,
    MemoryKeys,
    Quota,
    RateLimit,
    Stack,
    Subscription,
    by,
    conditions,
)
from apim_middleware.serving.options import uvicorn_options

keys = MemoryKeys()
for name, plan in (("acme", "small"), ("globex", "large")):
    keys.add(Subscription(id=name, product=plan))
acme_key, globex_key = keys.issue("acme"), keys.issue("globex")


def work(exchange: Exchange) -> int:
    """A report is as much work as five other calls."""
    return 5 if exchange.path.startswith("/reports/") else 1


app = FastAPI()
app.add_middleware(
    Stack(
        RateLimit(rate="20/second", name="flood", by=by.client),  # before the key is looked at
        RateLimit(rate="5/minute", name="guessing", by=by.client, count_when=conditions.status(401)),
        APIKeyAuth(keys=keys),
        Limits(
            RateLimit(
                rate="10/minute", name="burst", by=by.subscription, cost=work, tier=by.product, tiers={"large": 100}
            ),
            RateLimit(calls=1_000_000, per=3_600, name="bytes", by=by.subscription, units="response-bytes"),
            Quota(calls=1_000, period="month", zone="Europe/Berlin", by=by.subscription),
        ),
    )
)


@app.get("/orders/{number}")
def order(number: int) -> dict[str, int]:
    return {"order": number}


@app.get("/reports/{year}")
def report(year: int) -> dict[str, int]:
    return {"year": year, "orders": 4711}


if __name__ == "__main__":
    header = f'-H "Ocp-Apim-Subscription-Key: {acme_key}"'
    print(f"curl -i http://127.0.0.1:8000/orders/7 {header}       # 200, and where acme stands")
    print(f"curl -i http://127.0.0.1:8000/reports/2026 {header}   # 200 once: five units each; then 429")
    print(f'curl -i http://127.0.0.1:8000/orders/7 -H "Ocp-Apim-Subscription-Key: {globex_key}"   # a larger plan')
    print("for i in $(seq 9); do curl -so /dev/null -w '%{http_code} ' http://127.0.0.1:8000/; done   # 401, then 429")
    uvicorn.run(app, host="127.0.0.1", port=8000, **uvicorn_options())
