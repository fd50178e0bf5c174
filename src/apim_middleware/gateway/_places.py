"""Where a gateway or a guard keeps what it counts and stores: at its name, within the place of its environment."""

from apim_middleware.env import Env

DEFAULT_NAME = "gateway"
"""What a gateway is called that is not called anything."""


def place_of(name: str, env: Env) -> str:
    """The place of what has this name."""
    return f"{env.place}/{name}" if env.place else name


def home(name: str, env: Env, *, default: str) -> Env:
    """The environment at that place. Nobody has named one that all have by default."""
    return env.at(place_of(name, env), named=env.named or name != default)
