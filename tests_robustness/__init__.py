"""R: what benign fine-tuning changes, and its controls."""
