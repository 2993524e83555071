"""From probabilities to an answer: temperature, thresholds, abstention, refusal."""
