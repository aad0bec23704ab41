/**
 * Exact rows and columns of attention: asked for when something is pointed at, kept for a while. Until an exact row is
 * here, the rounded one of the picture stands in for it where there is one.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  const KEPT = 512; // rows and columns
  const REST_MS = 40;
  const RESTING_MS = 250; // while text streams: a row that is passing is not asked for

  /** @type {Map<string, Float32Array>} */ const known = new Map();
  /** @type {Map<string, {sight: object, kind: string, at: number}>} */ const wishes = new Map();
  let timer = 0;
  let asking = false;

  const keyOf = (sight, kind, at) => `${kind}/${at}/${sight.key}`;

  function keep(key, values) {
    if (known.size >= KEPT) known.delete(known.keys().next().value);
    known.set(key, values);
  }

  /** Base64 text as numbers of 32 bits. */
  const floats = (text) => new Float32Array(glassbox.b64(text).buffer);

  const FETCH = {
    async row({ sight, at }) {
      const { rows } = await glassbox.rpc('rows', { ...sight.args, rows: [at] });
      return floats(rows[0][1]);
    },
    async column({ sight, at }) {
      const { start, weights } = await glassbox.rpc('column', { ...sight.args, key: at });
      const values = floats(weights);
      const column = new Float32Array(start + values.length).fill(NaN);
      column.set(values, start);
      return column;
    },
  };

  async function askAll() {
    timer = 0;
    if (asking) return;
    asking = true;
    for (const [key, wish] of [...wishes].slice(-4)) {
      wishes.delete(key);
      const { epoch } = store;
      try {
        const values = await FETCH[wish.kind](wish);
        if (store.epoch !== epoch) continue;
        keep(key, values);
        glassbox.emit('attention');
      } catch {
        // what is rounded stays on the screen and says that it is rounded
      }
    }
    asking = false;
    if (wishes.size) later();
  }

  function later() {
    if (!timer) timer = setTimeout(askAll, store.streaming ? RESTING_MS : REST_MS);
  }

  function ask(sight, kind, at) {
    const key = keyOf(sight, kind, at);
    if (known.has(key) || at < store.firstRow || at >= store.rows) return;
    wishes.delete(key);
    wishes.set(key, { sight, kind, at });
    if (wishes.size > 8) wishes.delete(wishes.keys().next().value);
    later();
  }

  /** True for the newest row of a reply that is being written: it is gone before an answer would come. */
  const passing = (at) => store.streaming && store.selection.follow && !store.hover && at >= store.rows - 2;

  /**
   * What position `at` reads, and whether it is exact; asks for what is not. Null while nothing of it is here.
   * @returns {{weights: Float32Array, exact: boolean}|null}
   */
  function row(sight, at) {
    if (at < 0) return null;
    const exact = known.get(keyOf(sight, 'row', at));
    if (exact) return { weights: exact, exact: true };
    if (!passing(at)) ask(sight, 'row', at);
    const pattern = glassbox.patterns.get(sight);
    const weights = pattern && pattern.row(at);
    return weights && { weights, exact: false };
  }

  /** What each position reads of the key `at`, exactly: NaN before it. Null while it is not here. */
  function column(sight, at) {
    const values = at >= 0 ? known.get(keyOf(sight, 'column', at)) : null;
    const fresh = values && (store.streaming || values.length >= store.rows);
    if (!fresh) {
      if (values && !store.streaming) known.delete(keyOf(sight, 'column', at));
      if (at >= 0) ask(sight, 'column', at);
    }
    return values || null;
  }

  glassbox.on('tokens', ({ truncated }) => truncated && known.clear());
  glassbox.on('hello', () => known.clear());
  glassbox.on('branches', () => known.clear());

  glassbox.rows = { row, column };
})();
