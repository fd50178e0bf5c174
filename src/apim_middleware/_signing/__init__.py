"""Keys that check signatures of whole messages, and the bodies that were signed."""
