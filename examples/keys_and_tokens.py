"""An API with two doors: partners come with a subscription key, people with a token, and both are told who they are.

    python examples/keys_and_tokens.py

It prints a key, a token, and the curl lines to try.
"""

import time

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI, Request

from apim_middleware import APIKeyAuth, JWTAuth, MemoryKeys, Subscription
from apim_middleware.serving.options import uvicorn_options

ISSUER, AUDIENCE = "https://login.example.com/", "https://orders.example.com"

# What an identity provider does: it has a private key, and everybody knows the public one.
private_key = ec.generate_private_key(ec.SECP256R1())
public_key = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token(subject: str, scope: str, seconds: float = 3600) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope, "exp": time.time() + seconds}
    return jwt.encode(claims, private_key, algorithm="ES256")


# What the office does: it sells subscriptions, hands out each key once, and keeps digests.
keys = MemoryKeys()
keys.add(Subscription(id="acme", product="starter", owner="orders@acme.example"))
acme_key = keys.issue("acme")

partners = FastAPI()
partners.add_middleware(APIKeyAuth(keys=keys))

people = FastAPI()
people.add_middleware(JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=public_key, scopes="orders.read"))

app = FastAPI()
app.mount("/partners", partners)
app.mount("/people", people)


@partners.get("/whoami")
@people.get("/whoami")
def whoami(request: Request) -> dict[str, object]:
    return {"subject": request.user.subject, "issuer": request.user.issuer, "scopes": sorted(request.auth.scopes)}


if __name__ == "__main__":
    print(f"""
curl -i http://127.0.0.1:8000/partners/whoami
curl -i http://127.0.0.1:8000/partners/whoami -H 'Ocp-Apim-Subscription-Key: {acme_key}'
curl -i http://127.0.0.1:8000/people/whoami -H 'Authorization: Bearer {token("ada", "orders.read")}'
curl -i http://127.0.0.1:8000/people/whoami -H 'Authorization: Bearer {token("ada", "orders.write")}'
""")
    uvicorn.run(app, **uvicorn_options())
