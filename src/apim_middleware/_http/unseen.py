"""Request fields that no policy sees, because hygiene has taken them away before: asking for one is a mistake."""

from apim_middleware._http.hygiene import FORWARDING, Scrub

_PROXIES = 'Use TrustedProxies: behind it by.client, scope["scheme"] and Host are what the proxies say'
_HYPHENS = 'Write it with hyphens, or let such names in with Env(hygiene=Hygiene(odd_names="keep"))'
_ANOTHER = "Use another name, or give Env(hygiene=Hygiene(strip=...)) all the others without this one"


def unseen(name: bytes, scrub: Scrub | None = None) -> tuple[str, str] | None:
    """What hygiene does with every field of this lower-case name, and the cure; None for one that is left alone.

    Without a scrub only those are known that are set aside by everybody's rules.
    """
    if name in FORWARDING or name.startswith(b"x-forwarded"):
        return "sets aside for TrustedProxies alone", _PROXIES
    if scrub is None or scrub.passes(name):
        return None
    return "takes out of every request", _ANOTHER if name.replace(b"-", b"").isalnum() else _HYPHENS
