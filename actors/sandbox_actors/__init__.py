"""The domain: journal, sessions and the agents they run.

Nothing is imported here: the mock agent lives in this package and must start in an instant.
"""
