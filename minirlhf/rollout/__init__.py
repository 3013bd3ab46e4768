"""From prompts to facts: what the policy wrote, what it scored, and how likely every model found it."""
