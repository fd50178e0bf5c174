"""Subscribing to products: what a product promises about subscriptions is kept before one begins."""

import inspect
import secrets
from collections.abc import Iterable

from apim_middleware.errors import SubscriptionRefused
from apim_middleware.identity import Subscription
from apim_middleware.model import Product, User
from apim_middleware.stores.keys import NewSubscription, State, SubscriptionStore


async def subscribe(
    products: Iterable[Product],
    keys: SubscriptionStore,
    name: str,
    *,
    owner: str | User,
    subscription_id: str = "",
    expires: float | None = None,
) -> NewSubscription:
    """Begin a subscription to one of these products, with its keys in this store; as ``Gateway.subscribe``."""
    user = owner if isinstance(owner, User) else User(owner)
    product = _open_to(user, products, name)
    subscription = Subscription(id=subscription_id or secrets.token_hex(12), product=name, owner=user.id)
    state: State = "submitted" if product.approval_required else "active"
    begun = keys.begin(subscription, state=state, expires=expires, limit=product.subscriptions_limit)
    return await begun if inspect.isawaitable(begun) else begun


def _open_to(user: User, products: Iterable[Product], name: str) -> Product:
    """The product of this name, if this user may subscribe to it. Raises SubscriptionRefused."""
    product = next((each for each in products if each.name == name), None)
    if product is None:
        problem = f"{user.id!r} cannot subscribe to product {name!r}: there is none of this name"
        raise SubscriptionRefused("product-unknown", problem, "Name one of the gateway's products")
    if not product.published:
        problem = f"{user.id!r} cannot subscribe to product {name!r}: it is not published"
        raise SubscriptionRefused("product-not-published", problem, "Publish it, or add the subscription to the keys")
    if user.state != "active":
        problem = f"{user.id!r} cannot subscribe to product {name!r}: this user is {user.state}"
        raise SubscriptionRefused("owner-not-active", problem, "Make the user active first")
    if product.groups and not {*product.groups} & {*user.groups}:
        problem = f"{user.id!r} cannot subscribe to product {name!r}: it is for {' and '.join(product.groups)} only"
        cure = "Give the owner as a User with one of these groups"
        raise SubscriptionRefused("product-not-for-owner", problem, cure)
    return product
