"""Builds the reference: `python -m keras_bit.reference [FOLDER]`."""

import argparse
import pathlib

from keras_bit.reference.pages import build


def main():
    parser = argparse.ArgumentParser(prog="python -m keras_bit.reference", description=__doc__)
    parser.add_argument("folder", nargs="?", default="site", type=pathlib.Path)
    folder = parser.parse_args().folder
    build(folder)
    print(folder / "index.html")


if __name__ == "__main__":
    main()
