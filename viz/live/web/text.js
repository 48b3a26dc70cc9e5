// The reader's text: its letters, what is learned of it, and how letters are shown.

const SEGMENTS = typeof Intl !== "undefined" && Intl.Segmenter ? new Intl.Segmenter() : null;

/** What a reader sees as letters: an emoji of several code points is one. @param {string} text @returns {string[]} */
const lettersOf = (text) => (SEGMENTS ? Array.from(SEGMENTS.segment(text), (s) => s.segment) : [...text]);

/** @param {string} letter */
const visible = (letter) => ({ " ": "␣", "\n": "⏎", "\t": "⇥" })[letter] || letter;

/** A whole number, its thousands apart as in every language. @param {number} n */
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** A text as codes, cut to what the programs were made for, and a sentence about what was left out.
 * @param {string} text @param {{T: number, K: number}} largest */
function encoded(text, largest) {
  let letters = lettersOf(text.normalize("NFC"));
  const whole = letters.length, said = [];
  if (whole < 2) return { letters, alphabet: [], codes: [], said: whole ? tr("One letter has no next one to learn. Type at least two.") : tr("Type a word to learn.") };
  if (whole > largest.T + 1) {
    letters = letters.slice(0, largest.T + 1);
    said.push(tr("Only the first {n} of {total} letters are learned.", { n: largest.T + 1, total: grouped(whole) }));
  }
  const alphabet = [...new Set(letters)].sort();
  if (alphabet.length > largest.K) {
    const known = new Set(letters.filter((l, k) => letters.indexOf(l) === k).slice(0, largest.K));
    letters = letters.slice(0, letters.findIndex((l) => !known.has(l)));
    return { ...encoded(letters.join(""), largest), said: tr("Only {n} different letters fit: the text ends before the next one.", { n: largest.K }) };
  }
  if (alphabet.length < 2) alphabet.push("∅"); // one that never comes: else there were nothing to choose
  return { letters, alphabet, codes: letters.map((l) => alphabet.indexOf(l)), said: said.join(" ") };
}
