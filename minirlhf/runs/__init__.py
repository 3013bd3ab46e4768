"""The run folder: its files, its options, its clock, its progress bar."""
