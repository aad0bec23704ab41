/**
 * Tokens merged to words: which token belongs to which word, by the browser's own segmenter, which knows Chinese too;
 * and what rows and columns become when they are read by the word.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  const segmenter = typeof Intl.Segmenter === 'function' ? new Intl.Segmenter(undefined, { granularity: 'word' }) : null;

  /** Pieces of a text that count as words: [text, ...]; without a segmenter letters in a row, or one character. */
  function segments(text) {
    if (segmenter) return Array.from(segmenter.segment(text), ({ segment }) => segment);
    return text.match(/[\p{L}\p{N}_'’]+|\s+|[^]/gu) || [];
  }

  /** Where words begin in a text: offset -> true. Spaces belong to the word after them. */
  function starts(text) {
    const found = new Set();
    let at = 0;
    for (const piece of segments(text)) {
      if (piece.trim()) found.add(at);
      at += piece.length;
    }
    return found;
  }

  /**
   * A new word begins with a token whose first visible character begins one. Parts of a split character go with the
   * token that completes it; a control token is a word of its own.
   */
  function numberRun(tokens, from, to, words, next) {
    const begins = starts(tokens.slice(from, to).map((token) => (token.sp ? '' : token.s)).join(''));
    let at = 0;
    let word = next - 1;
    let open = false; // a split character has begun
    for (let i = from; i < to; i++) {
      const token = tokens[i];
      const lead = token.s.length - token.s.trimStart().length;
      const visible = !token.sp && lead < token.s.length;
      const begin = token.sp || i === from || tokens[i - 1].sp || (visible && begins.has(at + lead));
      if (begin && !open) word++;
      words[i] = word;
      open = token.s === '' && !token.sp;
      if (open && !begin && begins.has(at) && words[i - 1] === word) words[i] = ++word;
      if (!token.sp) at += token.s.length;
    }
    return word + 1;
  }

  let made = { n: 0, epoch: -1, words: [], members: [] };

  /** Word of each token, and the tokens of each word; words do not reach over messages. */
  function wordsOf() {
    const { tokens, epoch } = store;
    if (made.n === tokens.length && made.epoch === epoch) return made;
    const words = new Array(tokens.length);
    let next = 0;
    for (let from = 0, i = 1; i <= tokens.length; i++) {
      const same = i < tokens.length && tokens[i].m === tokens[from].m && tokens[i].role === tokens[from].role;
      if (same) continue;
      if (from < tokens.length) next = numberRun(tokens, from, i, words, next);
      from = i;
    }
    const members = Array.from({ length: next }, () => []);
    words.forEach((word, i) => members[word].push(i));
    made = { n: tokens.length, epoch, words, members };
    return made;
  }

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  /**
   * Values by position as values by word: weights on a word are those on its tokens together; what a word reads is the
   * mean of what its tokens read; of scores, which cannot be added, the largest. Positions without a value count not.
   * @param {Float32Array} values @param {'sum'|'mean'|'max'} how
   */
  function byWord(values, how) {
    const { words, members } = wordsOf();
    const merged = members.map((positions) => {
      const known = positions.map((i) => values[i]).filter((value) => value !== undefined && Number.isFinite(value));
      if (!known.length) return NaN;
      if (how === 'max') return Math.max(...known);
      return how === 'sum' ? mean(known) * known.length : mean(known);
    });
    return Float32Array.from(words, (word) => merged[word]);
  }

  glassbox.words = { wordsOf, byWord };
})();
