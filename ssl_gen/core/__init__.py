"""What every method page is made of: players, the gradient step, schedules, batches, options, random streams."""
