"""Guidances: alignments that steer sampling and leave every weight as it was.

Light; what computes lies in ``steering``.
"""
