"""A character model on any text file: stacked layers, truncated backpropagation, compiled: `minigrad train book.txt`.

Windows of the text follow one another in parallel streams, and the state is carried
from window to window while gradients stop at its edge.  Prints the loss in bits per
character on text that was held out, and a sample; Ctrl-C keeps what was learned.  With
--resume, the same command goes on where the last one stopped, to the same bits.
How, stands in minigrad/command/train.py.

    python examples/char_rnn.py
    python examples/char_rnn.py --text book.txt --hidden 256 --layers 2 --steps 5000 --out model
    python examples/char_rnn.py --text book.txt --steps 5000 --resume book.safetensors
"""

import sys
from pathlib import Path

from minigrad.command import train
from minigrad.command.main import example

if __name__ == "__main__":
    sys.exit(example(train, __doc__, text=Path(__file__).with_name("carroll.txt")))
