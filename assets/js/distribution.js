/**
 * What could have come here: candidates, each with its raw probability (hollow) and the one after the filters
 * (filled), or after one of them. Choosing one forks. Rows are made once and filled anew, so that following a
 * stream is cheap.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom } = glassbox;
  const { el } = dom;

  const [ID, RAW, FINAL, BY] = [0, 2, 3, 4];
  const LEVELS = [12, 20, 60, 200]; // rows

  /** Why a candidate is out, in a word: temperature removes tokens only at 0. */
  const removerName = (by) => (by === 'temperature' ? glassbox.t('pop_greedy') : glassbox.filterName(by));

  const percent = (p) => `${(100 * p).toPrecision(p > 0 ? 4 : 1)} %`;

  /**
   * Indices of the candidates to show: the `limit` likeliest ones, the last of them giving way to what stands there
   * and to what the draw falls on when these are below.
   */
  function shownOf({ cand, listed, id, drawn }, limit) {
    const shown = cand.map((_, i) => i);
    if (limit >= listed) return shown;
    const few = shown.slice(0, limit);
    const musts = shown.filter((i) => i >= limit && (cand[i][ID] === id || cand[i][ID] === drawn));
    return [...few.slice(0, limit - musts.length), ...musts];
  }

  /** Probability and remover of candidate `i` after a stage, by default the last. */
  function after({ cand, stages }, i, stage) {
    if (stage === null) return [cand[i][FINAL], cand[i][BY]];
    const removed = stages.findIndex(({ name }) => name === cand[i][BY]);
    return [stages[stage].probs[i], removed > 0 && removed <= stage ? cand[i][BY] : ''];
  }

  function makeRow() {
    const node = el('button', 'cand');
    node.type = 'button';
    const parts = {
      node,
      mark: el('span'),
      text: el('span', 'tx'),
      bars: el('span', 'bb'),
      raw: el('i'),
      final: el('b'),
      p: el('span', 'p p1'),
      after: el('span', 'p'),
    };
    parts.bars.append(parts.raw, parts.final);
    node.append(parts.mark, parts.text, parts.bars, parts.p, parts.after);
    return parts;
  }

  function lastLine(view, id) {
    const { t } = glassbox;
    if (id === view.id) return t(view.how === 'given' ? 'samp_stands' : 'samp_chosen');
    if (view.how === 'given') return t('pop_given');
    return t(view.how === 'ahead' ? 'samp_take' : 'samp_fork');
  }

  /** The exact numbers of a row, in words. */
  function tip(view, i, final, by) {
    const { t } = glassbox;
    const [id, text, raw] = view.cand[i];
    const rank = i < view.listed ? i + 1 : id === view.id && view.rank;
    const facts = [`${t('samp_token_id')} ${id}`, rank && t('pop_rank', rank)].filter(Boolean);
    return [
      `${dom.marked(text)}  (${facts.join(', ')})`,
      `${t('pop_raw')} ${percent(raw)}`,
      by ? t('pop_removed', removerName(by)) : `${t('pop_after')} ${percent(final)}`,
      id === view.drawn && view.how !== 'record' ? t('samp_would_fall', view.u.toFixed(3)) : '',
      lastLine(view, id),
    ]
      .filter(Boolean)
      .join('\n');
  }

  /** A full dot for what stands there, a ring for what the draw would fall on instead. */
  const markOf = (view, id) => (id === view.id ? 'mk' : id === view.drawn ? 'mk ring' : '');

  function markText(parts, text) {
    if (parts.said === text) return;
    parts.said = text;
    parts.text.replaceChildren();
    dom.mark(parts.text, text);
  }

  /** Fills one row; `scale` is the largest probability of the list. */
  function fillRow(parts, view, i, { scale, stage }) {
    const { node } = parts;
    const [id, text, raw] = view.cand[i];
    const [final, by] = after(view, i, stage);
    const chosen = id === view.id;
    node.hidden = false;
    Object.assign(node.dataset, { tokenId: id, raw, final, removedBy: by || '' });
    node.className = `cand${chosen ? ' ch' : ''}${by ? ' rm' : ''}`;
    node.setAttribute('aria-current', String(chosen));
    parts.tip = () => tip(view, i, final, by);
    if (node.title) node.title = parts.tip();
    parts.mark.className = markOf(view, id);
    markText(parts, text);
    parts.raw.style.width = `${(100 * raw) / scale}%`;
    parts.final.style.width = `${(100 * final) / scale}%`;
    parts.final.hidden = Boolean(by);
    dom.setText(parts.p, dom.pct(raw));
    dom.setText(parts.after, by ? removerName(by) : dom.pct(final));
    parts.after.className = by ? 'why' : 'p';
  }

  function hideRow({ node }) {
    node.hidden = true;
    delete node.dataset.tokenId;
  }

  /** The largest bar that any stage draws: bars keep their scale while stages are compared. */
  function scaleOf({ cand, stages, full }, shown) {
    const all = shown.flatMap((i) => [
      cand[i][RAW],
      cand[i][FINAL],
      ...(full ? stages.map((s) => s.probs[i]) : []),
    ]);
    return Math.max(1e-9, ...all);
  }

  /** The list of candidates; `choose(token)` is called when one is taken. */
  class Candidates {
    constructor(choose) {
      this.node = el('div', 'list');
      this.node.id = 'distribution';
      this.node.setAttribute('role', 'group');
      this.node.dataset.label = 'samp_could';
      this.rows = [];
      this.view = null;
      this.node.addEventListener('click', (event) => {
        const row = event.target.closest('[data-token-id]');
        if (row && this.view) choose(this.view, Number(row.dataset.tokenId));
      });
      this.node.addEventListener('keydown', (event) => this.walk(event));
      for (const name of ['pointerover', 'focusin']) {
        this.node.addEventListener(name, (event) => this.tell(event));
      }
    }

    /** The exact numbers of a row, first written when it is pointed at. */
    tell(event) {
      const row = this.rows.find(({ node }) => node.contains(event.target));
      if (row && !row.node.hidden) row.node.title = row.tip();
    }

    walk(event) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const rows = this.rows.filter(({ node }) => !node.hidden).map(({ node }) => node);
      const next = rows[Math.max(0, Math.min(rows.length - 1, rows.indexOf(document.activeElement) + step))];
      if (next) next.focus();
      event.preventDefault();
      event.stopPropagation();
    }

    focusFirst() {
      if (this.rows[0] && !this.rows[0].node.hidden) this.rows[0].node.focus();
    }

    hasFocus() {
      return this.node.contains(document.activeElement);
    }

    /** @param {View|null} view @param {{limit: number, stage: number|null}} how many, and after which stage */
    show(view, { limit, stage }) {
      this.view = view;
      const shown = view ? shownOf(view, limit) : [];
      const scale = view ? scaleOf(view, shown) : 1;
      shown.forEach((i, j) => {
        if (!this.rows[j]) this.node.append((this.rows[j] = makeRow()).node);
        fillRow(this.rows[j], view, i, { scale, stage });
      });
      for (const row of this.rows.slice(shown.length)) hideRow(row);
    }
  }

  /** Above the list: what it shows, and the names of its two numbers. */
  function makeHead() {
    const head = el('div', 'bh row');
    head.append(el('span', 'lab'), el('span', 'grow'));
    for (const [cls, key] of [
      ['mut num c1', 'pop_raw'],
      ['mut num c2', 'pop_after'],
    ]) {
      const node = el('span', cls);
      node.dataset.t = key;
      head.append(node);
    }
    return head;
  }

  /** Beneath the list: more rows or fewer, and the way to any other token. */
  class Length {
    /** @param {(rows: number) => void} change @param {() => void} other */
    constructor(change, other) {
      this.level = 0;
      this.change = change;
      this.node = el('div', 'tools');
      this.more = this.button('', () => this.set(this.level + 1));
      this.fewer = this.button('samp_fewer', () => this.set(0));
      this.any = this.button('samp_any', other);
      this.node.append(this.more, this.fewer, el('span', 'grow'), this.any);
    }

    button(key, action) {
      const node = el('button', 'more');
      node.type = 'button';
      if (key) node.dataset.t = key;
      node.addEventListener('click', action);
      return node;
    }

    get rows() {
      return LEVELS[this.level];
    }

    set(level) {
      this.level = level;
      this.change(this.rows);
    }

    /** More than were recorded can be had where the server is asked. */
    show(view) {
      this.node.hidden = !view;
      if (!view) return;
      const { t } = glassbox;
      const most = view.full ? LEVELS.length - 1 : 1;
      this.more.hidden =
        this.level >= most || (this.level ? view.listed < this.rows : view.cand.length <= this.rows);
      this.more.textContent = this.level
        ? t('samp_show_more')
        : t('samp_all', Math.min(view.cand.length, LEVELS[1]));
      this.fewer.hidden = this.level === 0;
      this.any.hidden = view.how === 'given';
    }
  }

  glassbox.distribution = { Candidates, Length, makeHead, removerName };
})();
