"""What a comparison file says, checked, and the runs that follow from it."""
