"""Features and keyframes to a path through latent space. Pure NumPy."""
