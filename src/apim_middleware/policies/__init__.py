"""The policies, one file for each family."""
