"""Run the benchmarks:  bash tests/benchmarks/install && .venvs/bench/bin/python tests/benchmarks/run.py [layers|stack]

``--smoke`` only shows that they run. What is not installed here is left out of the tables, and said.
"""

import argparse

import harness
import layers
import stack

TABLES = {"layers": layers.run, "stack": stack.run}


def main() -> None:
    """Run one table, or all."""
    parser = argparse.ArgumentParser(description="Benchmarks of apim_middleware.")
    parser.add_argument("table", nargs="?", choices=TABLES, help="which one; both when not given")
    parser.add_argument("--smoke", action="store_true", help="a second or two, no usable numbers")
    given = parser.parse_args()
    harness.heading()
    for name in [given.table] if given.table else TABLES:
        TABLES[name](harness.SMOKE if given.smoke else harness.FULL)


if __name__ == "__main__":
    main()
