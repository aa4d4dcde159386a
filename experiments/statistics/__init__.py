"""Statistics of a comparison: evidence on paired differences, scores of controllers, and how they rank."""
