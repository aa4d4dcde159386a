"""Controllers that plan at run time by sampling, by gradients or by enumeration."""
