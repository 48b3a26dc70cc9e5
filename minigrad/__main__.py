"""``python -m minigrad`` is the command `minigrad`."""

from .command.main import script

if __name__ == "__main__":
    script()
