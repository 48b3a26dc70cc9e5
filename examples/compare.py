"""The networks of the lecture side by side, same task, number of parameters and batches: `minigrad compare`.

RNN, LSTM, GRU, JANET, TCN and Transformer learn one after the other.  Prints what each reached on held-out
data and how long its steps took, and draws the learning curves.  How, stands in minigrad/command/compare.py.

    python examples/compare.py
    python examples/compare.py --task copy --parameters 20000 --steps 2000
    python examples/compare.py --task characters --text book.txt --seconds 60 --models LSTM GRU Transformer
"""

import sys
from pathlib import Path

from minigrad.command import compare
from minigrad.command.main import example

if __name__ == "__main__":
    sys.exit(example(compare, __doc__, text=Path(__file__).with_name("carroll.txt")))
