"""Studies of PolyStep and its rivals: networks without gradients, MAX-SAT, policy search, rates."""
