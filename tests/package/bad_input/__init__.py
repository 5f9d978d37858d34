"""A catalogue of bad input: what a user does, and the whole message that comes of it.

One module per room of the package, each with a list of cases; a new case is one entry.
"""
