"""Reading image files as the grey pixels of a film."""
