"""What is a bundle, an offer, money, a region, a setting? Pure rules, no I/O; and the command line."""
