"""Stock: a third app, in a process of its own.

python examples/app_of_apps/stock.py [--port 8081]
"""

import argparse

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel


class Article(BaseModel):
    """What is there of something."""

    name: str
    pieces: int
    asked_by: str


app = FastAPI(title="Stock")


@app.get("/articles/{name}", operation_id="getArticle", tags=["stock"])
async def article(name: str, request: Request) -> Article:
    return Article(name=name, pieces=len(name), asked_by=request.headers["x-subscription-id"])


@app.get("/internal", include_in_schema=False)
async def internal() -> str:
    return "for nobody else"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8081, help="where it listens")
    uvicorn.run(app, port=parser.parse_args().port, log_level="warning")
