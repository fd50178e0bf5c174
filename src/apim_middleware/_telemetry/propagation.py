"""The trace of a caller, taken out of the headers, and ours put in (W3C Trace Context and Baggage)."""

import logging
from typing import TYPE_CHECKING, Any, Literal

from apim_middleware._http import trace_context
from apim_middleware._http.headers import get_all
from apim_middleware._telemetry.masking import LONGEST
from apim_middleware.types import RawHeaders

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

log = logging.getLogger("apim_middleware")


class Propagation:
    """Takes the trace of a caller out of the headers, and puts ours in."""

    def __init__(self, parent: Literal["continue", "link", "ignore"], baggage: tuple[str, ...]) -> None:
        """How a caller's span is taken, and the keys of baggage that are let in."""
        from opentelemetry import context, propagate, trace

        self._parent = parent
        self._getter: Any = _Getter(baggage)
        self._textmap, self._now = propagate.get_global_textmap, context.get_current
        self._span_of, self._with_span = trace.get_current_span, trace.set_span_in_context
        self._nobody, self._link = trace.INVALID_SPAN, trace.Link
        self._fields_of: object = None
        self._fields: frozenset[bytes] = frozenset()

    def inward(self, headers: RawHeaders) -> "tuple[Context, list[Link]]":
        """The context a caller's headers make, and the links instead when it is not to be continued."""
        context = self._now()
        if self._span_of(context) is not self._nobody:
            context = self._with_span(self._nobody, context)  # left by whoever called us in process: not our caller
        carried = self._carried()
        lines = [pair for pair in headers if pair[0] in carried]
        if not lines or self._parent == "ignore":
            return context, []
        try:
            found = self._textmap().extract(lines, context, self._getter)
        except Exception:
            log.warning("the trace headers of a caller could not be read", exc_info=True)
            return context, []
        caller = self._span_of(found).get_span_context()
        if self._parent == "continue":
            return found, []
        return self._with_span(self._nobody, found), [self._link(caller)] if caller.is_valid else []

    def outward(self, headers: RawHeaders, context: "Context") -> RawHeaders:
        """A copy of the headers that names our span as the parent of what happens further in."""
        carrier: dict[str, str] = {}
        self._textmap().inject(carrier, context)
        carrier.pop("baggage", None)  # the caller's is for the app to read; what is let in stands in the context
        carried = self._carried()
        further = [pair for pair in headers if pair[0] not in carried or pair[0] == b"baggage"]
        further += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items()]
        return further

    def _carried(self) -> frozenset[bytes]:
        """The headers of the propagators that are configured."""
        if (textmap := self._textmap()) is not self._fields_of:
            self._fields = frozenset(name.lower().encode("latin-1") for name in textmap.fields)
            self._fields_of = textmap
        return self._fields


class _Getter:
    """Reads headers for a propagator, and withholds what is not valid or not allowed."""

    def __init__(self, baggage: tuple[str, ...]) -> None:
        self._baggage = frozenset(name.encode("latin-1") for name in baggage)

    def get(self, carrier: RawHeaders, key: str) -> list[str] | None:
        name = key.lower().encode("latin-1")
        lines = get_all(carrier, name)
        if name == b"traceparent":
            value = trace_context.traceparent(lines)
        elif name == b"tracestate":
            value = trace_context.tracestate(lines)
        elif name == b"baggage":
            value = trace_context.baggage(lines, self._baggage)
        else:
            return [line[:LONGEST].decode("latin-1") for line in lines] or None
        return [value] if value else None

    def keys(self, carrier: RawHeaders) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]
