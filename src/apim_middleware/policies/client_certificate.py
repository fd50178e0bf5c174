"""Client certificates: those of the connection, and those that a proxy in front tells of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apim_middleware._certificates.identities import CertificateIdentity, SubjectName
from apim_middleware._certificates.revocation import RevocationLists
from apim_middleware._http.forwarded import Trust
from apim_middleware._http.headers import is_token
from apim_middleware._http.hygiene import Hygiene
from apim_middleware._networks import trust_in
from apim_middleware.documentation import Answer, Documentation, Scheme
from apim_middleware.env import Env
from apim_middleware.policy import Policy, stated

if TYPE_CHECKING:
    from apim_middleware._certificates.checks import Authorities
    from apim_middleware._certificates.gate import Gate


@dataclass(frozen=True, kw_only=True)
class ClientCertificate(Policy):
    """Let in who has shown a good client certificate, as Azure's ``validate-client-certificate`` does.

    The certificate is the one of the TLS connection (the ``tls`` extension of ASGI), or with ``header`` the one that a
    proxy in front tells of. Checked are its time, its purpose, its chain to one of the ``authorities``, whether it was
    revoked, and whether it is one of the ``identities``. The client becomes ``exchange.principal``; tokens that are
    bound to a certificate (RFC 8705) are compared with this one.

    Refusals: 403 ``certificate-missing``, ``certificate-invalid``, ``certificate-revoked`` and
    ``certificate-not-allowed``; 503 ``revocation-unknown`` when the issuer's revocation list is out of date.
    """

    provides = frozenset({"principal"})
    guards = True

    authorities: str
    """The certificates of those who vouch for clients, in PEM. ``"server"``: the ASGI server, or the proxy that writes
    the header, has checked the chain already."""

    header: str = ""
    """The header in which a proxy tells of the certificate: ``Client-Cert`` (RFC 9440, with ``Client-Cert-Chain``),
    ``X-Forwarded-Client-Cert`` (Envoy), or any other with PEM, percent-encoded PEM or DER in base64 (nginx, Apache,
    Caddy, HAProxy, Traefik). It is taken out of every request."""

    trusted: str | tuple[str, ...] = ()
    """Whose header counts: addresses, networks, ranges of proxies, or ``"unix"``. That of others is not looked at."""

    identities: tuple[CertificateIdentity, ...] = ()
    """Who may come in: whoever fits one of these. Default: everybody the authorities vouch for."""

    revocations: RevocationLists | None = None
    """Certificates that were taken back. Default: none are known."""

    subject: SubjectName = "subject"
    """The name in the certificate that becomes the principal's subject; a certificate must have exactly one."""

    optional: bool = False
    """Whether a request without a certificate goes on, without a principal; one with a bad one never does."""

    @stated
    def documentation(self) -> Documentation:
        """A client certificate."""
        tls = Scheme("ClientCertificate", {"type": "mutualTLS"})
        codes = ("certificate-invalid", *(("certificate-not-allowed",) if self.identities else ()))
        codes = codes if self.optional else ("certificate-missing", *codes)
        if self.revocations is not None:
            codes = (*codes, "certificate-revoked")
        unknown = () if self.revocations is None else (Answer(503, ("revocation-unknown",)),)
        found = Documentation(security=((tls,),), answers=(Answer(403, codes), *unknown))
        return found.optional() if self.optional else found

    def __post_init__(self) -> None:
        """A header needs somebody to trust, and the authorities must be certificates."""
        if self.header and not is_token(self.header.encode("latin-1", "replace")):
            raise self.mistake("header", "is no name of a header", 'Write header="Client-Cert"')
        if bool(self.header) != bool(self.trusted):
            cure = "Give both: the header, and the proxies that write it and take it out of what clients send"
            raise self.mistake("trusted", "and header do not go together", cure)
        self._trust()
        authorities = self._authorities()
        if self.revocations is not None and authorities is not None:
            self.revocations.trust(authorities.certificates)

    def _trust(self) -> Trust:
        return trust_in(self, self.trusted, "lets every caller write the header")

    def _authorities(self) -> "Authorities | None":
        if self.authorities == "server":
            return None
        from apim_middleware._certificates.checks import Authorities  # which loads a large library, for who needs it

        try:
            return Authorities(self.authorities)
        except ValueError as error:
            cure = 'Give certificates in PEM, or "server" where the server has checked the chain'
            raise self.mistake("authorities", f"cannot be read: {error}", cure) from None
        except (ImportError, AttributeError):
            cure = "Install cryptography 45 or newer (the extra certificates)"
            raise self.mistake("authorities", "needs a newer cryptography", cure) from None

    def bind(self, env: Env) -> "Gate":
        """The gate, with a memory of certificates that were good."""
        from apim_middleware._certificates.gate import Gate, Showing

        name = self.header.lower()
        if name and not env.scrub.passes(name.encode()):
            cure = "Have the proxy write another, of letters, digits and hyphens"
            if name in Hygiene().strip:  # given anew, for all that is not said again would be let through
                rest = f'tuple(each for each in Hygiene().strip if each != "{name}")'
                cure = f"Have the proxy write another, or let this one through: Env(hygiene=Hygiene(strip={rest}))"
            raise self.mistake("header", "is taken out of every request by hygiene", cure)
        authorities = self._authorities()
        return Gate(
            Showing(self.header.lower().encode(), self._trust(), vouched=authorities is None),
            authorities,
            self.revocations,
            self.identities,
            self.subject,
            env.clock.now,
            optional=self.optional,
        )
