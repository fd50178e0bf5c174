"""Ways to an upstream: versions of the ``Transport`` protocol, one file for each client library."""
