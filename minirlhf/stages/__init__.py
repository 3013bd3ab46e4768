"""The commands that train, measure and use a model: data, model and optimizer brought together, one file each."""
