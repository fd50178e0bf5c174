"""Certificates of clients: whether they are good, and who they say the client is."""
