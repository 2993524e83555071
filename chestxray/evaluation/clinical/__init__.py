"""What figures mean where patients are: prevalence, thresholds, net benefit, sizes of tests."""
