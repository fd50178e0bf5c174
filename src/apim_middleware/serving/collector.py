"""The garbage collector of a process that serves requests and does nothing else."""

import gc

_GENERATIONS = (50_000, 20, 20)


def tune_gc() -> None:
    """Let Python's garbage collector do what a serving process needs, and no more: call it once, when all is loaded.

    Requests under way hold some hundred objects each, and a collector as it comes takes every 700 more for a reason to
    look through them. What is loaded is taken out of its sight (``gc.freeze``), and it looks when 50,000 more objects
    live than it knew. What refers to itself is still found, later: some megabytes. ``apim serve`` does so in each
    worker.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GENERATIONS)
