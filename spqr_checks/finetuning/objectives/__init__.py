"""The ordinary losses, a file for each: what is noised how, and what the denoiser should say."""
