"""`python -m osdisco.cli`."""

from osdisco.cli import main

if __name__ == "__main__":
    main()
