"""The variational autoencoder: architectures, loss, image data, model directories. Pure torch."""
