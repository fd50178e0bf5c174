"""Entries: an API as callers find it, which of its versions and revisions they mean, and what lets them in."""

from apim_middleware._http import queries
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.gateway._hooks import links
from apim_middleware.gateway._keys import Gate
from apim_middleware.gateway._plans import Edition, Endpoint
from apim_middleware.gateway._sites import revision_in
from apim_middleware.gateway._tries import Trie
from apim_middleware.identity import Subscription
from apim_middleware.model import ANY, Api, Version


class Entry:
    """An API: its editions, the products it is in, and the gate its keys come through."""

    __slots__ = (
        "_default", "_editions", "_parameter", "_retired", "_told_by", "admits_strangers", "api", "gate", "only",
        "products", "strangers",
    )  # fmt: skip

    def __init__(self, api: Api, products: frozenset[str], open_product: str | None, gate: Gate | None) -> None:
        """``open_product`` is the one that needs no subscription, if there is one."""
        self.api = api
        self.products = products
        self.gate = gate
        self.admits_strangers = open_product is not None or not api.subscription_required
        """Whether a call without a good key has a context: that of the open product, or of the API itself."""

        self.strangers = open_product or ""
        self._editions: dict[str, dict[int, Edition]] = {}
        self.only: Trie[Endpoint] | Edition | None = None
        """The operations that are meant where no revision is named, if there are no versions."""

        versions = api.versions
        self._told_by = "" if versions is None else versions.by
        self._parameter = "" if versions is None else versions.parameter
        self._default = "" if versions is None else versions.default
        self._retired = {} if versions is None else {each.name: each for each in versions.versions if each.retired}

    def add(self, edition: Edition) -> None:
        """One more edition; the current one of its version is also found as revision 0."""
        definition = edition.definition
        name = "" if definition.version is None else definition.version.name
        revisions = self._editions.setdefault(name, {})
        if definition.online:
            revisions[definition.revision] = edition
        if definition.current:
            revisions[0] = edition
            self.only = None if self._told_by else edition.found_in

    def editions(self) -> list[Edition]:
        """Every edition of the API, of all its versions and revisions, each once."""
        return list(dict.fromkeys(each for revisions in self._editions.values() for each in revisions.values()))

    def opened_by(self, subscription: Subscription) -> str | None:
        """The product in whose context a subscription opens this API, ``""`` for none; None when it does not."""
        if subscription.product:
            return subscription.product if subscription.product in self.products else None
        return "" if subscription.api in (self.api.name, ANY) else None

    def contexts(self) -> list[str]:
        """Every product it can be called in the context of, and ``""`` for none."""
        return ["", *sorted(self.products)]

    def choose(self, exchange: Exchange, segments: list[str], taken: int, revision: int) -> tuple[Edition, int]:
        """The edition a request means, and how many segments of the path say so. Raises Refusal."""
        if not self._told_by:
            return self._edition("", revision), taken
        asked: list[str] = []
        if self._told_by == "path":
            if taken < len(segments):
                text, number = revision_in(segments[taken])
                if text in self._editions:
                    if revision:  # of the default version, which must not stand in for another
                        raise _no_such_revision()
                    return self._edition(text, number), taken + 1
        elif self._told_by == "header":
            name = self._parameter.lower().encode()
            asked = [value.decode("latin-1").strip() for value in exchange.headers(name)]
        else:
            asked = queries.values(exchange.scope.get("query_string", b""), self._parameter)
        return self._edition(self._named(asked), revision), taken

    def _named(self, asked: list[str]) -> str:
        if not asked:
            if not self._default:
                raise Refusal(404, "api-version-missing", "This API has versions: say which one.")
            return self._default
        if len(set(asked)) > 1:
            raise Refusal(400, "api-version-ambiguous", "The request names several versions.")
        return asked[0]

    def _edition(self, version: str, revision: int) -> Edition:
        revisions = self._editions.get(version)
        if revisions is None:
            raise Refusal(404, "api-version-unknown", "This API has no such version.")
        if version in self._retired:
            raise _gone(self._retired[version])
        edition = revisions.get(revision)
        if edition is None:
            raise _no_such_revision()
        return edition


def _no_such_revision() -> Refusal:
    return Refusal(404, "operation-not-found", "This API has no such revision.")


def _gone(version: Version) -> Refusal:
    headers = [] if version.deprecation is None else links(version.deprecation)
    return Refusal(410, "version-retired", "This version of the API is no longer there.", headers=headers)
