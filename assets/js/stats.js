/**
 * Statistics of a reply, kept up as its tokens come: how many, how surprising, how fast, how many chosen by hand.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { sampled } = glassbox;
  const { bits, el } = glassbox.dom;

  /** Sums over the sampled tokens of one reply. */
  class Stats {
    constructor(tokens = []) {
      Object.assign(this, { n: 0, hand: 0, nats: 0, first: null, seconds: 0, timed: 0 });
      for (const token of tokens) this.add(token);
    }

    add(token) {
      if (!sampled(token)) return;
      this.n++;
      this.nats -= token.lp;
      if (token.u === null) this.hand++;
      else this.time(token.dt);
    }

    /** The first token waits for the prompt to be read: it has a figure of its own and no part in the speed. */
    time(dt) {
      if (dt == null) return;
      if (this.n === 1) {
        this.first = dt;
        return;
      }
      this.seconds += dt;
      this.timed++;
    }

    /** Mean surprise, bits a token. */
    get bits() {
      return this.n ? bits(this.nats) / this.n : 0;
    }

    get perplexity() {
      return this.n ? Math.exp(this.nats / this.n) : 1;
    }

    /** Tokens a second after the first; 0 while unknown. */
    get speed() {
      return this.seconds > 0 ? this.timed / this.seconds : 0;
    }
  }

  const short = (x) => (x < 10 ? x.toFixed(2) : x < 100 ? x.toFixed(1) : x.toFixed(0));
  const seconds = (s) => (s < 10 ? s.toFixed(2) : s.toFixed(0));

  /** What is said about a reply: [name, text] pairs, in the order in which they may be left out from the end. */
  function figures(stats, tps = 0) {
    const { t } = glassbox;
    const found = [['tokens', stats.n === 1 ? t('meta_token') : t('meta_tokens', stats.n)]];
    if (!stats.n) return found;
    found.push(['bits', t('meta_bits', stats.bits.toFixed(2))]);
    found.push(['perplexity', t('meta_perplexity', short(stats.perplexity))]);
    if (stats.hand) found.push(['hand', t('meta_hand', stats.hand)]);
    if (stats.speed || tps) found.push(['tps', t('meta_tps', (stats.speed || tps).toFixed(1))]);
    if (stats.first != null) found.push(['first', t('meta_first', seconds(stats.first))]);
    return found;
  }

  /** Writes the figures into `node`, a span each with its explanation; only what changed is written. */
  function drawFigures(node, pairs) {
    pairs.forEach(([name, text], at) => {
      let span = node.children[at];
      if (!span || span.dataset.figure !== name) {
        const fresh = el('span', `fig ${name}`);
        fresh.dataset.figure = name;
        if (span) span.replaceWith(fresh);
        else node.append(fresh);
        span = fresh;
      }
      const tip = glassbox.t(`meta_tip_${name}`);
      if (span.textContent !== text) span.textContent = text;
      if (span.title !== tip) span.title = tip;
    });
    while (node.children.length > pairs.length) node.lastChild.remove();
  }

  Object.assign(glassbox, { Stats, figures, drawFigures });
})();
