"""Searching a tree: by names, and by what stands in its files.

Nothing is imported here: the program of this package must start in an instant.
"""
