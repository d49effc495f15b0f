"""`python -m explorer map cat.jpg`: figures without a browser."""

import sys

from explorer.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
