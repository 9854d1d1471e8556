"""Families of denoisers, a file for each: what they are told, and what of them is trained."""
