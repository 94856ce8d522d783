"""`python -m keras_bit` is the command `keras-bit`."""

import sys

from keras_bit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
