/** One token as a span, as the transcript, the comparison and the samples show it. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { sampled } = glassbox;
  const { el, bits, marked, pct, tokenText } = glassbox.dom;

  function textNodes(text) {
    const nodes = [];
    text.split('\n').forEach((line, at) => {
      if (at) nodes.push(el('span', 'nl'), '\n');
      if (line) nodes.push(line);
    });
    return nodes;
  }

  /**
   * Its leading spaces stay outside the tint, its newlines are drawn, parts of a character numbered. The last child
   * takes the tint.
   */
  function tokenSpan(token) {
    const span = el('span', 't');
    const text = token.part && token.part[1] === 0 ? tokenText(token) : token.s;
    const word = text.replace(/^ +/, '');
    if (word && word !== text) span.append(el('span', 'lead', text.slice(0, text.length - word.length)));
    const ink = el('span', 'w');
    ink.append(...textNodes(word || text));
    if (token.part && token.part[1]) ink.dataset.part = token.part.join('/');
    span.append(ink);
    if (token.sp) span.classList.add('special');
    if (token.u === null) span.classList.add('hand');
    return span;
  }

  /** The same, tinted by surprise; for text that stays as it is. */
  function tintedSpan(token) {
    const span = tokenSpan(token);
    span.lastChild.style.backgroundColor = glassbox.surpriseTint(token);
    return span;
  }

  /** What is known of a token in one line: '·fox: 25.8 %, rank 1, 2.0 bits'. */
  function tokenFacts(token) {
    const { t } = glassbox;
    const name = t('quoted', marked(tokenText(token)));
    if (!sampled(token)) return t('fact_given', name, token.i);
    const facts = [t('fact_percent', pct(Math.exp(token.lp))), t('pop_rank', token.rank)];
    facts.push(t('bits', bits(-token.lp).toFixed(1)));
    if (token.u === null) facts.push(t('fact_hand'));
    return t('fact_drawn', name, token.i, facts.join(t('comma')));
  }

  Object.assign(glassbox, { tokenSpan, tintedSpan, tokenFacts });
})();
