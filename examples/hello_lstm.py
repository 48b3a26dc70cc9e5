"""An LSTM learns to write "hello", and pictures show how the gradient taught it: `minigrad hello`.

Trains on next characters (h→e, e→l, l→l, l→o) with the compiled loss, prints what was learned and how
large the gradient is at every step, and draws the unrolled network, the gradient
flowing back through time, and the gates over time.  How, stands in minigrad/command/hello.py.

    python examples/hello_lstm.py
    python examples/hello_lstm.py --word banana --cell rnn --hidden 16
    python examples/hello_lstm.py --text book.txt --steps 500 --out pictures
"""

import sys

from minigrad.command import hello
from minigrad.command.main import example

if __name__ == "__main__":
    sys.exit(example(hello, __doc__))
