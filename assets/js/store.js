/**
 * The page's one store. Every widget reads it and hears of changes through topics; none keeps
 * tokens or a selection of its own. Nothing here touches the DOM or the server (see wire.js).
 */
(() => {
  'use strict';

  /**
   * @typedef {object} Token
   * @property {number} i position
   * @property {number} id
   * @property {string} s text this token completed; '' for the earlier parts of a split character
   * @property {string} [b] bytes in hexadecimal, only when s is ''
   * @property {string} role system | user | assistant | template | text
   * @property {number} m message number
   * @property {number} [sp] 1 for a special token
   * @property {number} [lp] natural log of the raw probability; sampled tokens only
   * @property {number} [rank] 1 for the likeliest
   * @property {number} [ent] entropy of the raw distribution, nats
   * @property {number|null} [u] the draw; null when chosen by hand
   * @property {number} [par] index into settings
   * @property {Array<[number, string, number, number, string]>} [cand] id, text, raw, final, removed by
   * @property {string} [finish]
   * @property {number} [fl] natural log of the probability after the filters
   * @property {Array<[string, number, number]>} [st] filters that acted: name, tokens left, share of the mass kept
   * @property {string[]} [ig] filters that were not applied here
   * @property {number} [dt] seconds since the token before, or since the reply was asked for
   * @property {[number, number]} [part] k of n for a character split over n tokens; n is 0 while open
   */

  const store = {
    sid: null,
    run: 0,
    epoch: 0,
    streaming: false,
    finish: null,
    example: false,
    /** what is typed is the start of a text, not a message */ raw: false,
    /** @type {null|object} a model that is being loaded, see models.js */ load: null,
    model: null,
    /** @type {Token[]} */ tokens: [],
    /** @type {object[]} */ settings: [],
    params: {},
    defaults: {},
    limits: {},
    /** @type {Object<string, object>} preset -> what differs from neutral */ presets: {},
    /** value of each switch at which its filter does nothing */ neutral: {},
    /** @type {Object<string, string[]>} filter -> its parameters */ filters: {},
    /** @type {string[]} the usual order of the filters */ order: [],
    seed: 0,
    selection: { branch: 0, position: 0, layer: 0, head: 0, follow: true },
    /** @type {null|{query?: number, key?: number, layer?: number, head?: number}} */ hover: null,
    branches: [],
    branch: 0,
    /** @type {null|{from: number, list: object[]}} several replies to one prompt of `from` tokens */ samples:
      null,
    rows: 0,
    /** rows before this one were not kept */ firstRow: 0,
    tps: 0,
    memory: 0,
    context: 0,
    lang: 'en',
    theme: 'light',
  };

  const topics = new Map();
  const mounted = new Map();
  let collecting = null;

  /** Calls `listener(data)` at every emit of `topic`; returns the function that ends it. */
  function on(topic, listener) {
    if (!topics.has(topic)) topics.set(topic, new Set());
    topics.get(topic).add(listener);
    const off = () => topics.get(topic).delete(listener);
    if (collecting) collecting.push(off);
    return off;
  }

  /** A listener that fails is reported and does not keep the others from hearing. */
  function emit(topic, data) {
    for (const listener of [...(topics.get(topic) || [])]) {
      try {
        listener(data);
      } catch (error) {
        console.error(`glassbox: listener of '${topic}'`, error);
      }
    }
  }

  /** Draws a widget into a Gradio block; what an earlier mount of the same name listened to is released. */
  function mount(name, element, api) {
    (mounted.get(name) || []).forEach((off) => off());
    const root = element.querySelector('.gb-root') || element;
    root.replaceChildren();
    root.dataset.widget = name;
    collecting = [];
    mounted.set(name, collecting);
    try {
      window.glassbox.widgets[name](root, api || {});
    } finally {
      collecting = null;
    }
  }

  // ---- tokens ----

  const sampled = (token) => token != null && token.lp != null;

  const SAME = ['id', 's', 'm', 'role', 'lp', 'u', 'par'];
  const same = (a, b) => SAME.every((field) => a[field] === b[field]);

  /** How many of the arriving tokens the store holds already. */
  function overlap(from, toks) {
    let n = 0;
    while (n < toks.length && from + n < store.tokens.length && same(store.tokens[from + n], toks[n])) n++;
    return n;
  }

  /** Numbers the parts of split characters from `from` on; returns the first index whose mark changed. */
  function markParts(tokens, from) {
    let first = from;
    while (first > 0 && tokens[first - 1].s === '' && !tokens[first - 1].sp) first--;
    for (let i = first, open = 0; i < tokens.length; i++) {
      const part = tokens[i].s === '' && !tokens[i].sp;
      if (part) tokens[i].part = [++open, 0];
      if (part || !open) continue;
      if (!tokens[i].sp) for (let k = 0; k <= open; k++) tokens[i - open + k].part = [k + 1, open + 1];
      open = 0;
    }
    return first;
  }

  function keepSelectionInside(moved) {
    const { selection, tokens } = store;
    const last = Math.max(0, tokens.length - 1);
    if (selection.position > last) selection.follow = true;
    if (!selection.follow || selection.position === last) return;
    selection.position = last;
    emit('selection', { position: true, head: false, follow: moved });
  }

  function setTokens(message) {
    const { tokens } = store;
    const known = overlap(message.from, message.toks);
    const start = message.from + known;
    const added = message.toks.slice(known);
    const truncated = start < tokens.length && (added.length > 0 || message.epoch > store.epoch);
    store.epoch = message.epoch;
    if (truncated) tokens.length = start;
    if (!truncated && !added.length) return;
    for (const token of added) tokens.push(token);
    emit('tokens', { from: markParts(tokens, start), truncated });
    keepSelectionInside(true);
  }

  function setStats(message) {
    store.streaming = message.state === 'streaming';
    store.finish = message.finish || null;
    const { tps, context, memory, rows, first_row: firstRow } = message.stats || {};
    if (tps != null) store.tps = tps;
    if (context != null) store.context = context;
    if (memory != null) store.memory = memory;
    if (rows != null) store.rows = rows;
    if (firstRow != null) store.firstRow = firstRow;
  }

  function emitRows({ key, items }) {
    emit('row', { key, rows: items.map(([i, text]) => ({ i, bytes: b64(text) })) });
  }

  const isStale = (message) =>
    message.sid !== store.sid || message.run < store.run || message.epoch < store.epoch;

  // ---- several replies at once ----

  /** Begins to collect several replies to one prompt; null forgets those there are. */
  function setSamples(list) {
    if (!list && !store.samples) return;
    store.samples = list && { from: 0, list: list.map((one) => ({ finish: null, ...one, toks: [] })) };
    emit('samples', { fresh: true });
  }

  /** Takes the tokens of several replies in; false when some before them are missing. */
  function takeSamples({ from, samples: parts }) {
    if (!parts || !store.samples) return true;
    const { list } = store.samples;
    const known = parts.map(({ k, toks }) => (toks.length ? list[k].toks.length - (toks[0].i - from) : 0));
    if (known.some((n) => n < 0)) return false;
    store.samples.from = from;
    parts.forEach(({ k, toks, finish }, at) => {
      list[k].toks.push(...toks.slice(known[at]));
      if (finish) list[k].finish = finish;
    });
    emit('samples', { fresh: false });
    return true;
  }

  /**
   * Takes one pushed message in. Messages of another session, an older run or an older history change
   * nothing.
   * @returns {boolean} false when tokens or settings between the store's last and the message's first are missing
   */
  function apply(message) {
    if (isStale(message)) return true;
    if (message.from > store.tokens.length) return false;
    if ((message.settings_from || 0) > store.settings.length) return false;
    store.run = message.run;
    if (message.settings) store.settings.splice(message.settings_from || 0, Infinity, ...message.settings);
    if (!takeSamples(message)) return false;
    setTokens(message);
    setStats(message);
    if (message.rows && message.rows.items.length) emitRows(message.rows);
    emit('state');
    return true;
  }

  // ---- selection ----

  const wrap = (value, n) => (n ? ((value % n) + n) % n : value);

  /**
   * Moves the shared selection. Layer and head wrap around, the position stays inside the tokens and, unless
   * `follow` says otherwise, no longer tracks the newest token.
   * @param {{position?: number, layer?: number, head?: number, branch?: number, follow?: boolean}} patch
   */
  function select(patch) {
    const { selection, model, tokens } = store;
    const before = { ...selection };
    Object.assign(selection, patch);
    if ('position' in patch && !('follow' in patch)) selection.follow = false;
    selection.position = Math.max(0, Math.min(tokens.length - 1, selection.position));
    if (selection.follow) selection.position = Math.max(0, tokens.length - 1);
    selection.layer = wrap(selection.layer, model && model.n_layer);
    selection.head = wrap(selection.head, model && model.n_head);
    const head = before.layer !== selection.layer || before.head !== selection.head;
    const position = before.position !== selection.position || before.follow !== selection.follow;
    if (head || position) emit('selection', { position, head, follow: false });
  }

  /** Shows what is under the pointer; null ends it. Only the keys given are shown as hovered. */
  function hoverAt(hover) {
    const next = hover && Object.values(hover).some((value) => value != null && value >= 0) ? hover : null;
    if (JSON.stringify(next) === JSON.stringify(store.hover)) return;
    store.hover = next;
    emit('hover', next);
  }

  /** Position, layer and head that are shown now: what is hovered, else what is selected. */
  function looking() {
    const { selection, hover } = store;
    const pick = (value, other) => (value != null && value >= 0 ? value : other);
    if (!hover) return { query: selection.position, key: -1, layer: selection.layer, head: selection.head };
    return {
      query: pick(hover.query, selection.position),
      key: pick(hover.key, -1),
      layer: pick(hover.layer, selection.layer),
      head: pick(hover.head, selection.head),
    };
  }

  // ---- values ----

  /** Base64 text as bytes. */
  function b64(text) {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }

  /** A copy for tests and scripts: changing it changes nothing. */
  function snapshot() {
    const copy = structuredClone(store);
    for (const token of copy.tokens) if (token.par != null) token.params = { ...copy.settings[token.par] };
    return copy;
  }

  window.glassbox = {
    store,
    widgets: {},
    on,
    emit,
    mount,
    apply,
    setSamples,
    markParts,
    select,
    hoverAt,
    looking,
    b64,
    sampled,
    get state() {
      return snapshot();
    },
  };
})();
