"""Checks that change the model or its labels and ask whether its heat maps change with them."""
