/**
 * Who removed what: one row for the model and for each filter that acted, in order. The bar is the probability mass
 * that is left of the model's, its hatched end what this filter cut off; beneath stand the likeliest tokens that it
 * removed, or what it did to the others. A row that is pointed at shows the candidates as they were after it.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;
  const { el } = dom;

  const OPEN = 'glassbox.waterfall'; // localStorage: '1' or '0'
  const WIDE = '(min-width: 1181px)';
  const NAMED = 4; // removed tokens named beneath a row
  const LEAST = 5e-4; // a change smaller than this is none: half of the last decimal shown

  const stageName = (name) => (name === 'model' ? glassbox.t('wf_model') : glassbox.filterName(name));

  const share = (p) => (p > 0 && p < 1e-3 ? '<0.1' : (100 * p).toFixed(1));
  const loss = (p) => (p > 0 && p < 1e-3 ? share(p) : `−${share(p)}`);

  // ---- whether it is open ----

  /** localStorage throws where it is refused; it is then open on wide screens. */
  function wasOpen() {
    try {
      const kept = localStorage.getItem(OPEN);
      if (kept) return kept === '1';
    } catch {
      // nothing was remembered
    }
    return window.matchMedia(WIDE).matches;
  }

  function rememberOpen(open) {
    try {
      localStorage.setItem(OPEN, open ? '1' : '0');
    } catch {
      // Private windows may refuse: the choice lasts until the page closes.
    }
  }

  // ---- what a filter did, in words ----

  /** The candidate whose probability a reshaping filter changed most, as ['·fox', before, after]. */
  function mostChanged({ cand, stages }, k) {
    const before = stages[k - 1].probs;
    const now = stages[k].probs;
    const changes = now.map((p, i) => Math.abs(p - before[i]));
    const i = changes.indexOf(Math.max(...changes));
    return changes[i] > LEAST ? [cand[i][1], before[i], now[i]] : null;
  }

  /** The number that a filter has: what it came to here, else its first parameter. */
  function valueText({ params }, { name, note = {} }) {
    const value = note.value ?? params[(store.filters[name] || [])[0]];
    if (typeof value !== 'number') return '';
    return String(Number.isInteger(value) ? value : Number(value.toPrecision(3)));
  }

  /** What a filter went by besides the probabilities: XTC's coin, mirostat's aim. */
  function chanceText({ params }, { name, note = {} }) {
    const { t } = glassbox;
    if (name === 'mirostat' && note.mu != null) return `${t('wf_mu', note.mu.toFixed(2))}  `;
    if (name !== 'xtc' || note.coin == null) return '';
    const key = note.coin < params.xtc_probability ? 'wf_coin_acts' : 'wf_coin_rests';
    return `${t(key, note.coin.toFixed(3), params.xtc_probability)}  `;
  }

  /** Whether a stage is known to have left everything as it was. */
  const isIdle = (view, k) =>
    view.full && k > 0 && !view.stages[k].n_removed && mostChanged(view, k) === null;

  function changeNodes(view, k) {
    const changed = mostChanged(view, k);
    if (!changed) return [];
    const [text, before, now] = changed;
    return [dom.mark(el('span', 'tk'), text), ` ${dom.pct(before)} → ${dom.pct(now)} %`];
  }

  function removedNodes({ removed = [], n_removed: n = removed.length }, cut) {
    const nodes = [`${loss(cut)} % `];
    for (const [, text] of removed.slice(0, NAMED)) nodes.push(' ', dom.mark(el('s', 'tk'), text));
    const rest = n - Math.min(removed.length, NAMED);
    if (rest > 0) nodes.push(` ${glassbox.t(removed.length ? 'wf_more' : 'wf_tokens', dom.int(rest))}`);
    return nodes;
  }

  /** What stands beneath a row; nothing while only numbers are known. */
  function noteNodes(view, k) {
    const stage = view.stages[k];
    if (k === 0) return [];
    if (view.ignored.includes(stage.name)) return [glassbox.t('wf_skip_text')];
    if (!view.full) return [];
    const lead = chanceText(view, stage);
    const did = stage.n_removed ? removedNodes(stage, 1 - stage.kept) : changeNodes(view, k);
    return lead ? [lead, ...did] : did;
  }

  // ---- rows ----

  function makeRow() {
    const node = el('div', 'wfs');
    node.setAttribute('role', 'listitem');
    const line = el('div', 'wfr');
    const [title, track] = [el('span', 'nm'), el('span', 'tr')];
    const parts = { node, name: el('span'), value: el('span', 'mut'), left: el('b'), cut: el('i') };
    parts.tokens = el('span', 'n');
    parts.note = el('div', 'wfx');
    title.append(parts.name, parts.value);
    track.append(parts.left, parts.cut);
    line.append(title, track, parts.tokens);
    node.append(line, parts.note);
    return parts;
  }

  /** A row that knows what it removed can be reached by key, and then says what it shows. */
  function makeReachable(node, reachable, label) {
    if (reachable) node.setAttribute('aria-label', label());
    const index = reachable ? 0 : -1;
    if (node.tabIndex !== index) node.tabIndex = index;
  }

  /** @param {number} mass what was left before this stage; @returns {number} what is left after it */
  function fillRow(parts, view, k, mass) {
    const { node } = parts;
    const { name, tokens, kept } = view.stages[k];
    const left = mass * Math.min(1, kept);
    const skipped = view.ignored.includes(name);
    const idle = isIdle(view, k);
    node.hidden = false;
    node.className = `wfs${skipped ? ' off' : idle ? ' idle' : ''}`;
    node.title = idle && !skipped ? glassbox.t('wf_same') : '';
    Object.assign(node.dataset, { stage: name, tokens: tokens ?? '', kept });
    makeReachable(node, view.full, () => glassbox.t('wf_row', stageName(name), dom.int(tokens), share(left)));
    dom.setText(parts.name, stageName(name));
    dom.setText(parts.value, k && !skipped ? ` ${valueText(view, view.stages[k])}` : '');
    parts.left.style.width = `${100 * left}%`;
    parts.cut.style.left = `${100 * left}%`;
    parts.cut.style.width = `${100 * (mass - left)}%`;
    parts.cut.hidden = mass - left < 1e-4;
    dom.setText(parts.tokens, skipped ? glassbox.t('wf_skipped') : tokens == null ? '' : dom.int(tokens));
    const notes = noteNodes(view, k);
    if (notes.length || parts.note.firstChild) parts.note.replaceChildren(...notes);
    return left;
  }

  function hideRow({ node }) {
    node.hidden = true;
    delete node.dataset.stage;
  }

  // ---- the whole ----

  class Waterfall {
    /** @param {(stage: string|null) => void} preview called with the stage that is pointed at */
    constructor(preview) {
      this.preview = preview;
      this.rows = [];
      this.node = el('details', 'wf');
      this.node.open = wasOpen();
      this.list = el('div');
      this.list.id = 'waterfall';
      this.list.setAttribute('role', 'list');
      this.list.dataset.label = 'wf_title';
      this.count = el('span', 'mut num');
      this.node.append(this.summary(), this.list);
      this.listen();
    }

    summary() {
      const summary = el('summary');
      const title = el('span', 'lab');
      title.dataset.t = 'wf_title';
      summary.append(dom.icon('right'), title, el('span', 'grow'), this.count);
      return summary;
    }

    listen() {
      const point = (event) => {
        const row = event.target.closest('[data-stage]');
        this.preview(row ? row.dataset.stage : null);
      };
      this.node.addEventListener('toggle', () => {
        rememberOpen(this.node.open);
        this.show(this.view);
      });
      for (const name of ['pointerover', 'focusin', 'click']) this.list.addEventListener(name, point);
      this.list.addEventListener('pointerleave', () => this.leave());
      this.list.addEventListener('focusout', () => this.preview(null));
      this.list.addEventListener('keydown', (event) => this.walk(event));
    }

    /** The pointer has gone; a row that has the focus goes on to be shown. */
    leave() {
      const focused = this.rows.find(({ node }) => node === document.activeElement);
      this.preview(focused ? focused.node.dataset.stage : null);
    }

    walk(event) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const rows = this.rows.filter(({ node }) => !node.hidden).map(({ node }) => node);
      const next = rows[rows.indexOf(document.activeElement) + step];
      if (next) next.focus();
      event.preventDefault();
      event.stopPropagation();
    }

    /** Marks the row whose distribution the candidates show. */
    mark(stage) {
      for (const { node } of this.rows)
        node.classList.toggle('at', stage !== null && node.dataset.stage === stage);
    }

    /** @param {View|null} view */
    show(view) {
      this.view = view;
      this.node.hidden = !view;
      if (!view) return;
      const last = view.stages[view.stages.length - 1];
      dom.setText(this.count, last.tokens == null ? '' : glassbox.t('wf_left', dom.int(last.tokens)));
      if (this.node.open) this.fill(view);
    }

    fill(view) {
      let mass = 1;
      view.stages.forEach((_, k) => {
        if (!this.rows[k]) this.list.append((this.rows[k] = makeRow()).node);
        mass = fillRow(this.rows[k], view, k, mass);
      });
      for (const row of this.rows.slice(view.stages.length)) hideRow(row);
    }
  }

  glassbox.waterfall = { Waterfall, stageName };
})();
