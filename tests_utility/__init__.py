"""P and Q: prompt adherence and image quality."""
