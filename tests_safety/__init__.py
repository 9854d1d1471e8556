"""S: safety suppression and its controls."""
