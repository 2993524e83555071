"""Whether heat maps lie where something is known to be: in a finding's mask or box, or in the lungs."""
