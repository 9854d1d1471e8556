"""A run as one page: light, so that a run may look beforehand whether the page can be written."""

MARK = "spqr-checks run"
SHARP = b'<label class="picture flagged">'
"""In a page that holds flagged images behind their blur."""
