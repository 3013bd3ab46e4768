"""Settings for every test: no deadlines, because shared machines stumble, and the same drawn cases every time."""

from hypothesis import settings

settings.register_profile("minirlhf", deadline=None, derandomize=True)
settings.load_profile("minirlhf")
