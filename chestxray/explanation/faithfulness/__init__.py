"""Whether heat maps follow what the model does: checks that change the image and look at the answer or the map."""
