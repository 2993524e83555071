"""What cheap models get that see no lungs."""
