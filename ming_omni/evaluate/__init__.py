"""What a model wrote and what was said -> figures: error rates, and the normal form of texts they are counted on."""
