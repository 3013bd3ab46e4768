"""Pages: what a run's figures and samples look like to a reader."""
