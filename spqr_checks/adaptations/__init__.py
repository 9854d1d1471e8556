"""What users do to a released model that is no attack and no plain fine-tuning; a file each."""
