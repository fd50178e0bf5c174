"""Credentials of our own, for upstreams: secrets and where they are kept, tokens and how they are had."""
