"""`python -m asyncline`."""

from asyncline.cli import main

if __name__ == "__main__":
    main()
