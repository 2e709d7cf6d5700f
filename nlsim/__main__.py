"""Run the command line as ``python -m nlsim``."""

from nlsim.cli.app import main

if __name__ == "__main__":
    main()
