"""Signed tokens: how one is taken apart, which keys may verify it, where those come from."""
