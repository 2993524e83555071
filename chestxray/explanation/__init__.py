"""Heat maps: where in an image the score of a class comes from."""
