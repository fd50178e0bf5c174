"""What is written down of a request: attributes of spans and measures, without anybody's secrets."""
