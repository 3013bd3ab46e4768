"""`python -m minirlhf` is the command `minirlhf`."""

import sys

from minirlhf.cli import main

if __name__ == "__main__":
    sys.exit(main())
