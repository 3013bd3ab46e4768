"""For anyone who tests code against minirlhf: numerical gradients and hypothesis strategies."""
