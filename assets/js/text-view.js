/**
 * The conversation as the model has it, template and all, shaded by what the selected token read, or by who read it;
 * token by token or word by word. With something pinned: by the difference of the two rows.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, looks } = glassbox;
  const { el, css } = glassbox.dom;

  const LEVELS = 32;
  const FAINT = 0.02;

  const tint = (share, colour) => `rgba(${css(colour)},${(0.05 + 0.6 * Math.abs(share)).toFixed(3)})`;

  /** How values of a kind are merged to words: [over keys, over queries]. */
  const merging = (kind) => (kind === 'score' ? ['max', 'max'] : ['sum', 'mean']);

  const isWords = () => looks.unit === 'word';
  const membersOf = (i) => {
    if (!isWords() || i < 0) return [i];
    const { words, members } = glassbox.words.wordsOf();
    return members[words[i]] || [i];
  };

  /** Several arrays of the same meaning as one; null when one of them is not here. */
  function together(arrays, how) {
    if (arrays.some((array) => !array)) return null;
    if (arrays.length === 1) return arrays[0];
    const out = new Float32Array(Math.max(...arrays.map(({ length }) => length)));
    for (let i = 0; i < out.length; i++) {
      const known = arrays.map((array) => array[i]).filter((value) => value !== undefined && Number.isFinite(value));
      const sum = known.reduce((a, b) => a + b, 0);
      out[i] = !known.length ? NaN : how === 'max' ? Math.max(...known) : how === 'sum' ? sum : sum / known.length;
    }
    return out;
  }

  function rowOf(sight, position) {
    const rows = membersOf(position).map((i) => {
      const shown = glassbox.rows.row(sight, i);
      return shown && shown.weights;
    });
    return together(rows, merging(sight.kind)[1]);
  }

  /** What the position read, by key; or who read it, by query. NaN where there is nothing. */
  function valuesAt(sight, position) {
    const [keys, queries] = merging(sight.kind);
    if (looks.way === 'read_by') {
      const columns = together(membersOf(position).map((i) => glassbox.rows.column(sight, i)), keys);
      return columns && (isWords() ? glassbox.words.byWord(columns, queries) : columns);
    }
    const row = rowOf(sight, position);
    return row && (isWords() ? glassbox.words.byWord(row, keys) : row);
  }

  /** How far the text of a branch is the one that is shown. */
  function sharedWith(id) {
    const branch = store.branches.find((one) => one.id === id);
    return branch && id !== store.branch ? glassbox.tree.parting(branch) : Infinity;
  }

  /** The pinned row less the current one, as far as both read the same text. */
  function differenceAt(sight, position) {
    const { pin } = looks;
    const pinned = valuesAt(glassbox.sights.pinnedSight(), pin.position);
    const current = valuesAt(sight, position);
    if (!pinned || !current) return null;
    const shared = sharedWith(pin.branch);
    const at = (values, i) => (values[i] !== undefined && Number.isFinite(values[i]) ? values[i] : 0);
    const length = Math.max(pinned.length, current.length);
    return Float32Array.from({ length }, (_, i) => (i < shared ? at(pinned, i) - at(current, i) : NaN));
  }

  /** Largest value that counts: neither the first token, unless it is shown, nor the position itself. */
  function topOf(values, position) {
    const members = new Set(membersOf(position));
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(values[i]) || (i === 0 && looks.sink !== 'in')) continue;
      if (members.has(i) && looks.way === 'read_by') continue;
      if (Math.abs(values[i]) > high) high = Math.abs(values[i]);
      if (values[i] < low) low = values[i];
    }
    return { low, high: Math.max(high, 1e-6) };
  }

  class TextView {
    /** @param {HTMLElement} box */
    constructor(box) {
      this.box = box;
      this.text = el('div', 'rtext');
      box.append(this.text);
      /** @type {HTMLElement[]} */ this.spans = [];
      this.tints = [];
      this.run = null;
      this.marked = null;
      this.lang = '';
      this.listen();
    }

    listen() {
      const at = (event) => {
        const span = event.target.closest('[data-at]');
        return span ? Number(span.dataset.at) : -1;
      };
      this.text.addEventListener('pointerover', (event) => event.pointerType === 'mouse' && this.hover(at(event)));
      this.text.addEventListener('pointerleave', () => glassbox.hoverAt(null));
      this.text.addEventListener('click', (event) => {
        const position = at(event);
        if (position < 0) return;
        glassbox.hoverAt(null);
        glassbox.select({ position });
      });
      this.box.addEventListener('keydown', (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation(); // here the template's tokens are walked too
        glassbox.hoverAt(null);
        glassbox.select({ position: store.selection.position + by });
      });
    }

    hover(i) {
      const { position } = store.selection;
      if (i < 0) return glassbox.hoverAt(null);
      return glassbox.hoverAt(looks.way === 'reads' ? { key: i } : { query: i, key: position });
    }

    /** Makes the text agree with the store from token `from` on. */
    update(from = this.spans.length) {
      if (this.lang !== store.lang) from = 0;
      this.lang = store.lang;
      if (from < this.spans.length) this.cut(from);
      for (let i = this.spans.length; i < store.tokens.length; i++) this.add(store.tokens[i]);
    }

    cut(from) {
      const kept = this.spans[from - 1];
      this.spans.length = this.tints.length = from;
      if (!kept) {
        this.text.replaceChildren();
        this.run = null;
        return;
      }
      while (kept.nextSibling) kept.nextSibling.remove();
      while (kept.parentNode.nextSibling) kept.parentNode.nextSibling.remove();
      this.run = kept.parentNode;
    }

    add(token) {
      const name = `${token.role}/${token.m}`;
      if (!this.run || this.run.dataset.run !== name) {
        this.run = el('div', `run ${token.role}`);
        this.run.dataset.run = name;
        if (token.role !== 'template') this.run.append(el('span', 'rname', glassbox.t(`band_${token.role}`)));
        this.text.append(this.run);
      }
      const span = glassbox.tokenSpan(token);
      span.dataset.at = token.i;
      this.run.append(span);
      this.spans.push(span);
    }

    /** Shades the text for a sight and a place. Returns the bar that its colours mean, or null while values come. */
    draw(sight, { query, key }) {
      this.update();
      const position = looks.way === 'reads' ? query : store.selection.position;
      const versus = Boolean(looks.pin);
      const kind = versus ? 'difference' : sight.kind;
      const values = versus ? differenceAt(sight, position) : valuesAt(sight, position);
      const bar = values && topOf(values, position);
      this.spans.forEach((span, i) => this.paint(span, i, values ? this.share(kind, bar, values[i], i) : null));
      this.mark(position, looks.way === 'reads' ? key : query);
      const low = kind === 'score' ? bar && bar.low : 0;
      return bar && { kind, bar: { ...bar, low: kind === 'difference' ? -bar.high : low } };
    }

    share(kind, bar, value, i) {
      if (value === undefined || !Number.isFinite(value)) return 0;
      if (i === 0 && looks.sink === 'out') return 0;
      const share = glassbox.picture.shareOf(kind, bar, value);
      return Math.abs(share) < Math.max(FAINT, looks.least) ? 0 : Math.round(share * LEVELS) / LEVELS;
    }

    /** Null leaves what is there until values have come. */
    paint(span, i, share) {
      if (share === null || this.tints[i] === share) return;
      this.tints[i] = share;
      span.lastChild.style.backgroundColor = share ? tint(share, share < 0 ? '--df' : '--at') : '';
    }

    mark(position, other) {
      const chosen = looks.way === 'reads' ? ['q', 'k'] : ['k', 'q'];
      const next = [[position, chosen[0]], [other === position ? -1 : other, chosen[1]]];
      for (const [i, cls] of this.marked || []) if (this.spans[i]) this.spans[i].classList.remove(cls);
      this.marked = next;
      for (const [i, cls] of next) if (this.spans[i]) this.spans[i].classList.add(cls);
      if (this.shown !== position && this.spans[position] && !store.hover) this.reveal(position);
    }

    reveal(position) {
      this.shown = position;
      const { box } = this;
      const span = this.spans[position];
      const top = span.offsetTop - box.offsetTop;
      if (top < box.scrollTop || top + 24 > box.scrollTop + box.clientHeight)
        box.scrollTop = top - box.clientHeight / 2;
    }
  }

  Object.assign(glassbox, { TextView });
})();
