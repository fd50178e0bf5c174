"""What those who check tokens ask of callers and may answer, as documents say it."""

from typing import Any

from apim_middleware._jose.fields import ChecksTokens, texts_in, words_in
from apim_middleware.documentation import Answer, Documentation, Scheme, api_key, challenged


def described(policy: ChecksTokens, *unavailable: str, optional: bool, form: str = "") -> Documentation:
    """The documentation of a policy that checks tokens; ``unavailable`` are the codes of its 503."""
    dpop = policy.dpop
    first = () if optional else ("token-missing",)
    answers = [challenged(401, *first, "token-invalid")]
    if len(texts_in(policy.token_from)) > 1 or not _alone(policy):
        answers.append(challenged(400, "token-ambiguous"))
    if policy.scopes:
        answers.append(challenged(403, "insufficient-scope"))
    if policy.roles:
        answers.append(Answer(403, ("forbidden",)))
    if dpop is not None:
        answers.append(challenged(401, "dpop-proof-invalid"))
        if dpop.nonce_key is not None:
            answers.append(Answer(401, ("dpop-nonce-required",), ("www-authenticate", "dpop-nonce")))
        unavailable = (*unavailable, "proofs-unavailable")
    if unavailable:
        answers.append(Answer(503, unavailable, ("retry-after",)))
    found = Documentation(security=_ways(policy, form), answers=tuple(answers))
    return found.optional() if optional else found


def _alone(policy: ChecksTokens) -> bool:
    """Whether two tokens never come so far: of ``Authorization`` there is one, or hygiene refuses."""
    return texts_in(policy.token_from)[0].lower() == "header:authorization"


def _ways(policy: ChecksTokens, form: str) -> tuple[tuple[Scheme, ...], ...]:
    scopes = words_in(policy.scopes)
    return tuple(
        (each._replace(scopes=scopes),) for place in texts_in(policy.token_from) for each in _of(policy, place, form)
    )


def _of(policy: ChecksTokens, place: str, form: str) -> list[Scheme]:
    name, (kind, _, where) = type(policy).__name__, place.partition(":")
    if place.lower() != "header:authorization":
        return [api_key(f"{name}-{kind}", kind, where, "An access token.")]
    bearer: dict[str, Any] = {"type": "http", "scheme": "bearer", **({"bearerFormat": form} if form else {})}
    found = [] if policy.dpop is not None and policy.dpop.required else [Scheme(name, bearer)]
    if policy.dpop is not None:
        proof = "An access token that is bound to a key, with a proof in DPoP (RFC 9449)."
        found.append(Scheme(f"{name}-DPoP", {"type": "http", "scheme": "dpop", "description": proof}))
    return found
