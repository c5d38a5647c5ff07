"""`python -m distillbench`."""

from distillbench.cli.main import main

if __name__ == "__main__":
    main()
