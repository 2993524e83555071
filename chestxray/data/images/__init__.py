"""One file becomes the pixels of a film."""
