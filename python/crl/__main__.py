"""`python -m crl VERB`, the same as `crl VERB`."""

from crl.cli import main

if __name__ == "__main__":
    main(prog_name="crl")
