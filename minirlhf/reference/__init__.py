"""Every idea's formula in NumPy float64, forward and backward derived by hand: an authority that shares no code."""
