"""The commands of ``apim``, a file for each: thin shells around what the package offers in Python."""
