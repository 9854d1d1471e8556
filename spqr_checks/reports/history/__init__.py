"""Scorecards of releases in order: a plain folder of them, and what is shown of it."""
