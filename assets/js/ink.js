/**
 * The tint of the transcript. Purple: what the selected head read, on the tokens before the query. Amber: how
 * surprising a sampled token was, nothing at 70 % or more, full at one in a thousand. One colour, one
 * meaning.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;
  const { css, el } = glassbox.dom;

  const LEVELS = 32; // steps of a tint; few, so that most spans keep their colour when a row changes
  const FAINT = 0.02; // share of the row's largest weight below which nothing is drawn

  /** 0 at a probability of 70 % or more, 1 at one in a thousand. */
  function surprise(logprob) {
    const span = Math.log(0.7) - Math.log(0.001);
    return Math.max(0, Math.min(1, (Math.log(0.7) - logprob) / span));
  }

  const amber = (level) => `rgba(${css('--su')},${(0.02 + 0.5 * level).toFixed(3)})`;
  const purple = (level) => `rgba(${css('--at')},${(0.07 + 0.43 * level).toFixed(3)})`;

  /** The reader's choice; null lets the page choose: surprise while nothing is picked, then what was read. */
  let chosen = null;

  const mode = () => chosen || (store.selection.follow ? 'surprise' : 'read');

  function setInk(next) {
    chosen = next;
    glassbox.emit('ink', next);
  }

  /**
   * Weights of the query's row as shares of the largest, the first token apart; null while they are not here.
   */
  function readShares({ query }) {
    const shown = glassbox.rows && glassbox.rows.row(glassbox.sights.readingSight(), query);
    if (!shown) return null;
    const row = shown.weights;
    let top = 1e-6;
    for (let k = 1; k < query; k++) top = Math.max(top, row[k]);
    return { row, top };
  }

  const surpriseTint = (token) => {
    const level = sampled(token) ? Math.round(surprise(token.lp) * LEVELS) / LEVELS : 0;
    return level ? amber(level) : '';
  };

  function readTint(shares, i) {
    const share = Math.min(1, shares.row[i] / shares.top);
    return share > FAINT ? purple(Math.round(Math.sqrt(share) * LEVELS) / LEVELS) : '';
  }

  /** Paints the spans of one transcript, touching only what changed. */
  class Ink {
    constructor(transcript) {
      this.transcript = transcript;
      this.tints = new WeakMap();
      this.marks = { q: null, k: null };
    }

    set(span, tint) {
      if ((this.tints.get(span) || '') === tint) return;
      this.tints.set(span, tint);
      span.lastChild.style.backgroundColor = tint;
    }

    mark(cls, span) {
      if (this.marks[cls] === span) return;
      if (this.marks[cls]) this.marks[cls].classList.remove(cls);
      if (span) span.classList.add(cls);
      this.marks[cls] = span;
    }

    paint() {
      const { spans } = this.transcript;
      const look = glassbox.looking();
      const hovered = store.hover && store.hover.query >= 0;
      const read = hovered || mode() === 'read';
      const shares = read ? readShares(look) : null;
      const picked = hovered || !store.selection.follow;
      spans.forEach((span, i) => {
        const before = read && i < look.query;
        this.set(span, before ? (shares ? readTint(shares, i) : '') : surpriseTint(store.tokens[i]));
      });
      this.mark('q', (picked && spans[look.query]) || null);
      this.mark('k', (look.key >= 0 && look.key !== look.query && spans[look.key]) || null);
    }

    /** Tokens from `cut` on are not there yet in a replay; null shows all. */
    dim(cut) {
      this.transcript.spans.forEach((span, i) => span.classList.toggle('fut', cut !== null && i >= cut));
    }
  }

  // ---- legend ----

  function rampItem(name, colour, end) {
    const item = el('span');
    const bar = el('i');
    bar.style.background = `linear-gradient(to right,${colour(0)},${colour(1)})`;
    item.append(name, bar, end || '');
    return item;
  }

  /** What tints and underlines mean, for what is on the page now. */
  function drawLegend(node) {
    const { t } = glassbox;
    const name = store.model ? glassbox.sights.shortName(glassbox.sights.currentSight()) : '';
    const bands = glassbox.bandLabels();
    const shown = [store.lang, store.theme, mode(), store.hover !== null, name, ...bands].join();
    if (node.dataset.shown === shown) return;
    node.dataset.shown = shown;
    const items = [rampItem(t('legend_surprise'), amber, t('legend_surprise_high'))];
    if (mode() === 'read' || store.hover) items.push(rampItem(t('legend_read', name), purple));
    node.replaceChildren(...items);
    if (bands.length < 2) return;
    const item = el('span', '', t('legend_settings'));
    bands.slice(0, 4).forEach((label, band) => item.append(el('i', `bd b${band % 3}`), label));
    node.append(item);
  }

  Object.assign(glassbox, { Ink, drawLegend, setInk, inkMode: mode, surprise, surpriseTint });
})();
