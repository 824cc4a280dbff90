"""The run in which a small model learns to hear, see and read: a feed, a network and a loop made for one GPU."""
