"""A gallery of your own text: RNN, LSTM, GRU and JANET on the same characters: `minigrad see book.txt`.

Each cell is trained briefly on the text, compiled; then the same stretch of it runs through all
four, visibly, and is drawn: the unrolled network, the gradient on its way back, the gates, which
way the gradient took, which step's loss reaches which step, the weights by step, a health report,
a comparison, and for each cell a page to walk about in.  Open index.html in the folder.
How, stands in minigrad/command/see_text.py.

    python examples/see_bptt.py
    python examples/see_bptt.py --text book.txt --out gallery --steps 500 --hidden 32
"""

import sys
from pathlib import Path

from minigrad.command import see_text
from minigrad.command.main import example

if __name__ == "__main__":
    sys.exit(example(see_text, __doc__, text=Path(__file__).with_name("carroll.txt")))
