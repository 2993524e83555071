"""New images become answers."""
