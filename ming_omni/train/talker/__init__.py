"""The run in which nano's talker learns to speak: a cast of speakers, a store of latents, a network and a loop."""
