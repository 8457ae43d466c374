"""Adapters for web frameworks: each translates, and decides nothing."""
