"""``python -m canister``: the command line."""

import sys

from canister.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
