"""Every idea that has a gradient, once, so that one test can hold all its witnesses against each other."""
