"""`python -m panini`: the command where its folder is not on the PATH."""

from panini.cli.main import app

if __name__ == "__main__":
    app(prog_name="panini")
