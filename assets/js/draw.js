/**
 * The draw at one position: the final distribution laid end to end, with the dart u, and what it fell on, or would
 * fall on, in words.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom } = glassbox;
  const { el } = dom;

  const [ID, TEXT, FINAL] = [0, 1, 3];
  const SLACK = 2e-3;
  const LABELLED = 0.14; // pieces at least as wide carry their token

  /** Which token the strip points out: what was drawn or would be; what was chosen by hand. */
  const marked = (view) => view.drawn ?? view.id;

  /**
   * The survivors in the order of the draw, descending; what is left to 1 is the tail, of tokens that are not
   * listed. `fits` is false when the dart does not meet its token: penalties may have put unlisted tokens between.
   */
  function stretches(view) {
    const listed = view.cand.slice(0, view.listed);
    const top = listed.filter((c) => c[FINAL] > 0).sort((a, b) => b[FINAL] - a[FINAL]);
    const on = top.findIndex((c) => c[ID] === marked(view));
    const mass = (count) => top.slice(0, count).reduce((sum, c) => sum + c[FINAL], 0);
    const [from, to] = on < 0 ? [mass(top.length), 1] : [mass(on), mass(on + 1)];
    const tail = Math.max(0, 1 - mass(top.length));
    const fits = view.u === null || (view.u > from - SLACK && view.u < to + SLACK);
    return { top, on, tail: tail > SLACK ? tail : 0, fits };
  }

  const isGreedy = ({ params }) => params.temperature === 0 && !params.dynatemp_range;

  /** The string that tells a re-shaped draw: the same token once more, or another one. */
  const againKey = ({ drawn, id }) => (drawn === id ? 'samp_would_again' : 'samp_would');

  function sentence(view, inTail) {
    const { t } = glassbox;
    const { how, u } = view;
    if (u === null) return t('samp_by_hand');
    if (isGreedy(view)) return t(how === 'record' ? 'samp_greedy_draw' : 'samp_greedy_would');
    if (how === 'record') return t(inTail ? 'samp_drew_tail' : 'samp_drew', u.toFixed(3));
    const keys = { ahead: 'samp_will_draw', given: 'samp_would_have', now: againKey(view) };
    return t(keys[how], u.toFixed(3));
  }

  /** Puts the token, drawn as everywhere, in place of {1}. */
  function fillSentence(node, view, inTail) {
    const [before, after] = sentence(view, inTail).split('{1}');
    const candidate = view.cand.find((c) => c[ID] === marked(view));
    node.replaceChildren(before);
    if (after === undefined) return;
    node.append(dom.mark(el('b', 'qc'), candidate ? candidate[TEXT] : ''), after);
  }

  function placeDart(dart, view) {
    dart.hidden = view.u === null || isGreedy(view);
    if (dart.hidden) return;
    dart.style.left = `${100 * view.u}%`;
    dart.className = `num ${view.u < 0.07 ? 'lo' : view.u > 0.93 ? 'hi' : ''}`;
    dart.dataset.u = view.u.toFixed(3);
  }

  /** Pieces laid end to end, made once and used again. */
  class Strip {
    constructor() {
      this.node = el('div', 'st');
      this.node.setAttribute('aria-hidden', 'true');
      this.pieces = el('div', 'pieces');
      this.dart = el('em');
      this.node.append(this.pieces, this.dart);
    }

    fill({ top, on, tail }) {
      const parts = top.map((c, i) => [c[FINAL], i === on ? 'on' : '', c[FINAL] > LABELLED ? c[TEXT] : '']);
      if (tail) parts.push([tail, on < 0 ? 'tail on' : 'tail', '']);
      while (this.pieces.children.length < parts.length) this.pieces.append(el('s'));
      [...this.pieces.children].forEach((node, i) => {
        node.hidden = i >= parts.length;
        if (node.hidden) return;
        const [share, name, text] = parts[i];
        node.className = name;
        node.style.width = `${100 * share}%`;
        dom.setText(node, dom.marked(text).trim());
      });
    }
  }

  /**
   * @param {HTMLElement} box takes the strip and the sentence
   * @param {HTMLElement} action what can be done with the draw, put behind the sentence
   * @returns {(view: View|null) => void} shows the draw of a view; null hides it
   */
  function makeDraw(box, action) {
    const strip = new Strip();
    const text = el('p');
    const words = el('span');
    text.append(words, ' ', action);
    box.append(strip.node, text);
    return (view) => {
      box.hidden = !view;
      if (!view) return;
      const all = stretches(view);
      strip.node.hidden = !all.fits && !isGreedy(view);
      strip.fill(all);
      placeDart(strip.dart, view);
      fillSentence(words, view, all.on < 0);
    };
  }

  glassbox.draw = { makeDraw };
})();
