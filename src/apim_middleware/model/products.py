"""Products, and who may see and own subscriptions to them."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware.model._values import check_name, check_unique
from apim_middleware.types import Layer


@dataclass(frozen=True)
class Product(Configured):
    """APIs that are subscribed to together, with policies for those who call in its context.

    ``Product("starter", apis=("orders", "status"), policies=(RateLimit(calls=5, per=60, by=by.subscription),))``.
    """

    name: str
    """What it is called in subscriptions, traces and places of counters."""

    _: KW_ONLY
    apis: tuple[str, ...]
    """The names of its APIs; ``("*",)`` for all of the gateway."""

    policies: tuple[Layer, ...] = ()
    """In front of its APIs, behind the gateway's, for calls with a key of it, and for all where it needs none."""

    inherit: bool = True
    """Whether the gateway's policies stand in front of its own."""

    subscription_required: bool = True
    """Whether it needs a subscription. An API may be in one product only that needs none (an open product)."""

    approval_required: bool = False
    """Whether a subscription begins as ``submitted``, whose keys work once it is approved; asks for a subscription."""

    subscriptions_limit: int | None = None
    """How many subscriptions an owner may have at a time that are submitted, active or suspended; None for any number.

    It is asked when one begins: who has more when it is made smaller keeps them.
    """

    published: bool = True
    """Whether developers see it, and may subscribe. Keys work all the same."""

    groups: tuple[str, ...] = ()
    """The groups whose members see it, and may subscribe; everybody where it names none."""

    title: str = ""
    """What published documents call it, in the place of its name."""

    description: str = ""
    """What it is for, in prose, for published documents."""

    terms: str = ""
    """What subscribers agree to; ``x-terms`` of its published document."""

    tags: tuple[str, ...] = ()
    """Words to sort it by, for those who show products."""

    def __post_init__(self) -> None:
        """What it says of subscriptions makes sense."""
        check_name(self)
        check_unique(self, "apis", self.apis)
        if self.subscriptions_limit is not None and self.subscriptions_limit < 1:
            raise self.mistake("subscriptions_limit", "allows none", "Give at least 1, or None")
        if self.approval_required and not self.subscription_required:
            raise self.mistake("approval_required", "needs subscriptions", "Leave subscription_required=True")


@dataclass(frozen=True)
class User(Configured):
    """Somebody who may own subscriptions."""

    id: str
    """What tells users apart, such as the ``sub`` of an identity provider; 1 to 256 characters."""

    _: KW_ONLY
    email: str = ""
    """Where to reach them."""

    first_name: str = ""
    """Their given name."""

    last_name: str = ""
    """Their family name."""

    state: Literal["active", "blocked", "pending", "deleted"] = "active"
    """Only who is ``active`` may begin a subscription."""

    groups: tuple[str, ...] = ()
    """The names of the groups they are in."""

    note: str = ""
    """What whoever looks after users wants to remember."""

    def __post_init__(self) -> None:
        """There is an id."""
        if not self.id or len(self.id) > 256:
            raise self.mistake("id", "has not 1 to 256 characters", "Give what tells users apart")
