"""Run the benchmarks:  bash tests/benchmarks/install && .venvs/bench/bin/python tests/benchmarks/run.py [TABLE]

``--smoke`` only shows that they run; ``--large`` is for the proxies. What is not installed here is left out of
the tables, and said.
"""

import argparse
from dataclasses import replace

import cache
import durable
import eviction
import exact
import gateways
import guarded
import harness
import layers
import limiters
import shared
import stack
import tokens

import proxy

TABLES = {
    "layers": layers.run,
    "stack": stack.run,
    "limits": limiters.run,
    "guarded": guarded.run,
    "sqlite": durable.run,
    "exactness": exact.run,
    "eviction": eviction.run,
    "cache": cache.run,
    "redis": shared.run,
    "tokens": tokens.run,
    "gateway": gateways.run,
    "proxy": proxy.run,
}


def main() -> None:
    """Run one table, or all."""
    parser = argparse.ArgumentParser(description="Benchmarks of apim_middleware.")
    parser.add_argument("table", nargs="?", choices=TABLES, help="which one; all when not given")
    parser.add_argument("--smoke", action="store_true", help="a second or two, no usable numbers")
    parser.add_argument("--large", action="store_true", help="bodies of 1 GiB in the place of 100 MiB")
    given = parser.parse_args()
    effort = harness.SMOKE if given.smoke else harness.FULL
    harness.heading()
    for name in [given.table] if given.table else TABLES:
        TABLES[name](replace(effort, body=1 << 30) if given.large else effort)


if __name__ == "__main__":
    main()
