"""Ways to an upstream: versions of the ``Transport`` protocol; files with an underscore are what they are made of."""
