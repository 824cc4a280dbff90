"""The run in which nano's picture autoencoder learns: scenes drawn on the GPU, one loop, pieces to carry away."""
