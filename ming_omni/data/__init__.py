"""Public packages -> training sets of pictures, speech and text with their labels; one seed, one set, everywhere."""
