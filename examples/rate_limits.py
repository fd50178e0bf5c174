"""Three limits in a row: on guessing, on bursts, and on what a customer bought.

    python examples/rate_limits.py

It prints two keys and the curl lines to try; look at ``ratelimit``, ``ratelimit-policy`` and ``retry-after``.
"""

import uvicorn
from fastapi import FastAPI

from apim_middleware import APIKeyAuth, Exchange, MemoryKeys, Quota, RateLimit, Stack, Subscription, by

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
        RateLimit(rate="20/second", name="guessing", by=by.client),  # before the key is looked at: guesses count too
        APIKeyAuth(keys=keys),
        RateLimit(rate="10/minute", name="burst", by=by.subscription, cost=work),
        Quota(rate="1000/day", by=by.subscription),
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
    print(f'curl -i http://127.0.0.1:8000/orders/7 -H "Ocp-Apim-Subscription-Key: {globex_key}"   # another count')
    print(
        "for i in $(seq 30); do curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:8000/; done   # 401, then 429"
    )
    uvicorn.run(app, host="127.0.0.1", port=8000, proxy_headers=False)
