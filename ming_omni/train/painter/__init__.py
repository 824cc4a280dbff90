"""The run in which nano's painter learns: requests planned beside the GPU, pictures drawn on it, two phases, pieces."""
