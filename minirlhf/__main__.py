"""`python -m minirlhf` is the command `minirlhf`."""

import os
import sys

from minirlhf.cli import main

if __name__ == "__main__":
    code = main()
    if "WORLD_SIZE" in os.environ:  # under torchrun
        # What talks to other processes keeps threads, and now and then they abort a process that ends the usual way.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
