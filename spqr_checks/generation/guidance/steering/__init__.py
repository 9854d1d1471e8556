"""The heavy parts of guidance: what acts on a pipeline's UNet and scheduler while it draws."""
