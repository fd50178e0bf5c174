"""What rate limits, quotas and several of them together share."""
