/**
 * The draw of one token: its final distribution laid end to end, with the dart u, and what it fell on in
 * words.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;
  const { el } = dom;

  const FINAL = 3;
  const LISTED = 20; // candidates recorded for every token; a chosen one below them is added as the last
  const SLACK = 2e-3;

  /**
   * The survivors in the order of the draw, descending; what is left to 1 is the tail, of tokens that are not
   * listed. `fits` is false when the dart does not meet the chosen token: penalties may have put unlisted
   * tokens between.
   */
  function stretches({ cand, id, u }) {
    const below = cand.length > LISTED && cand[cand.length - 1][0] === id;
    const listed = below ? cand.slice(0, -1) : cand;
    const top = listed.filter((c) => c[FINAL] > 0).sort((a, b) => b[FINAL] - a[FINAL]);
    const chosen = top.findIndex((c) => c[0] === id);
    const mass = (count) => top.slice(0, count).reduce((sum, c) => sum + c[FINAL], 0);
    const [from, to] = chosen < 0 ? [mass(top.length), 1] : [mass(chosen), mass(chosen + 1)];
    const tail = Math.max(0, 1 - mass(top.length));
    const fits = u === null || (u > from - SLACK && u < to + SLACK);
    return { top, chosen, tail: tail > SLACK ? tail : 0, fits };
  }

  const isGreedy = (token) => (store.settings[token.par] || {}).temperature === 0;

  function sentence(token, inTail) {
    const { t } = glassbox;
    if (token.u === null) return t('samp_by_hand');
    if (isGreedy(token)) return t('samp_greedy_draw');
    return t(inTail ? 'samp_drew_tail' : 'samp_drew', token.u.toFixed(3));
  }

  /** Puts the chosen token, drawn as everywhere, in place of {1}. */
  function fillSentence(node, token, inTail) {
    const [before, after] = sentence(token, inTail).split('{1}');
    node.replaceChildren(before);
    if (after === undefined) return;
    node.append(dom.mark(el('b', 'qc'), dom.tokenText(token)), after);
  }

  function placeDart(dart, token) {
    dart.hidden = token.u === null || isGreedy(token);
    if (dart.hidden) return;
    dart.style.left = `${100 * token.u}%`;
    dart.className = `num ${token.u < 0.07 ? 'lo' : token.u > 0.93 ? 'hi' : ''}`;
    dart.dataset.u = token.u.toFixed(3);
  }

  /** Pieces laid end to end, made once and used again. */
  class Strip {
    constructor() {
      this.node = el('div', 'st');
      this.pieces = el('div', 'pieces');
      this.dart = el('em');
      this.node.append(this.pieces, this.dart);
    }

    fill({ top, chosen, tail }) {
      const parts = top.map((c, i) => [c[FINAL], i === chosen ? 'on' : '']);
      if (tail) parts.push([tail, chosen < 0 ? 'tail on' : 'tail']);
      while (this.pieces.children.length < parts.length) this.pieces.append(el('s'));
      [...this.pieces.children].forEach((node, i) => {
        node.hidden = i >= parts.length;
        if (node.hidden) return;
        node.className = parts[i][1];
        node.style.width = `${100 * parts[i][0]}%`;
      });
    }
  }

  /**
   * @param {HTMLElement} box takes the strip and the sentence
   * @returns {(token: object|null) => void} shows the draw of a sampled token; null hides it
   */
  function makeDraw(box) {
    const strip = new Strip();
    const text = el('p');
    box.append(strip.node, text);
    return (token) => {
      box.hidden = !token;
      if (!token) return;
      const all = stretches(token);
      strip.node.hidden = !all.fits && !isGreedy(token);
      strip.fill(all);
      placeDart(strip.dart, token);
      fillSentence(text, token, all.chosen < 0);
    };
  }

  glassbox.draw = { makeDraw };
})();
