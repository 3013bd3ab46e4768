"""No witness may ask the network for anything. Set before the libraries are imported, which is when they look."""

import os

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[name] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
