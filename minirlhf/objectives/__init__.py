"""Pure functions on tensors: likelihoods, losses, rewards and advantages, with no model and no tokenizer in sight."""
