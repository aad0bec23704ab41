/**
 * Attention patterns as the page keeps them: one packed lower triangle of bytes a head, row = query, column =
 * key, byte = round(255 * sqrt(weight)). Rows arrive pushed, one a token, for the selected head; whatever is
 * missing is pulled. A few heads looked at lately are kept, so that going back to one costs nothing. Draws
 * nothing.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  const KEPT_BYTES = 48 << 20;
  const WAITING_ROWS = 512;
  const CHECK_MS = 40;
  const RETRY_MS = 1500;

  /** Weight of each byte. */
  const WEIGHT = Float32Array.from({ length: 256 }, (_, byte) => (byte / 255) ** 2);

  /** Where row i begins in a packed lower triangle; also how many values the i rows before it hold. */
  const rowStart = (i) => (i * (i + 1)) / 2;

  const grown = (bytes, size) => {
    if (size <= bytes.length) return bytes;
    const bigger = new Uint8Array(Math.max(size, 2 * bytes.length));
    bigger.set(bytes);
    return bigger;
  };

  /** Rows of one head, appended in order, with the largest byte so far and coarser copies made on demand. */
  class Triangle {
    constructor() {
      this.bytes = new Uint8Array(rowStart(64));
      this.n = 0;
      this.version = 0;
      /** Largest byte outside the first column, and of the first column. */
      this.top = 0;
      this.first = 0;
      this.pools = new Map();
    }

    /**
     * Takes packed rows from row `from` on; those it holds already are skipped. False when rows before are
     * missing.
     */
    append(from, data) {
      if (from > this.n) return false;
      const skip = rowStart(this.n) - rowStart(from);
      const added = skip < data.length ? data.subarray(skip) : data.subarray(0, 0);
      const old = this.n;
      this.bytes = grown(this.bytes, rowStart(old) + added.length);
      this.bytes.set(added, rowStart(old));
      for (let left = added.length; left > this.n; this.n++) left -= this.n + 1;
      this.findTops(old);
      return true;
    }

    findTops(from) {
      const { bytes } = this;
      for (let i = from; i < this.n; i++) {
        const start = rowStart(i);
        if (bytes[start] > this.first) this.first = bytes[start];
        for (let k = start + 1; k <= start + i; k++) if (bytes[k] > this.top) this.top = bytes[k];
      }
    }

    truncate(n) {
      if (n >= this.n) return;
      this.n = Math.max(0, n);
      this.version++;
      this.top = this.first = 0;
      this.pools.clear();
      this.findTops(0);
    }

    row(i) {
      return this.bytes.subarray(rowStart(i), rowStart(i) + i + 1);
    }

    /**
     * The triangle with 2**level rows and columns in one cell, each cell the largest of its values, so that a
     * lone strong weight stays on the screen when there are more tokens than pixels.
     */
    pooled(level) {
      if (level === 0) return this.bytes;
      if (!this.pools.has(level)) this.pools.set(level, { bytes: new Uint8Array(0), done: 0 });
      const pool = this.pools.get(level);
      const side = ((this.n - 1) >> level) + 1;
      pool.bytes = grown(pool.bytes, rowStart(side));
      for (; pool.done < this.n; pool.done++) this.poolRow(pool.bytes, pool.done, level);
      return pool.bytes;
    }

    poolRow(out, i, level) {
      const { bytes } = this;
      const from = rowStart(i);
      const to = rowStart(i >> level);
      for (let k = 0; k <= i; k++) {
        const cell = to + (k >> level);
        if (bytes[from + k] > out[cell]) out[cell] = bytes[from + k];
      }
    }
  }

  // ---- the heads that are kept ----

  /** @type {Map<string, Triangle>} latest used last */
  const kept = new Map();
  /** Rows pushed ahead of ones that are being pulled, by head. */
  const waiting = new Map();
  const pulls = new Map();
  let wanted = null;

  const keyOf = (layer, head) => `${layer}/${head}`;

  function use(key) {
    const triangle = kept.get(key) || new Triangle();
    kept.delete(key);
    kept.set(key, triangle);
    let total = 0;
    for (const { bytes } of kept.values()) total += bytes.length;
    for (const [old, { bytes }] of kept) {
      if (total <= KEPT_BYTES || old === key || old === wanted) continue;
      total -= bytes.length;
      kept.delete(old);
    }
    return triangle;
  }

  const announce = (layer, head, from) => glassbox.emit('attention', { layer, head, from });

  function takeRow(key, triangle, i, bytes) {
    if (i < triangle.n || triangle.append(i, bytes)) return;
    if (!waiting.has(key)) waiting.set(key, new Map());
    const rows = waiting.get(key);
    if (rows.size < WAITING_ROWS) rows.set(i, bytes);
  }

  function takeWaiting(key, triangle) {
    const rows = waiting.get(key);
    if (!rows) return;
    while (rows.has(triangle.n)) triangle.append(triangle.n, rows.get(triangle.n));
    waiting.delete(key);
  }

  function takePushed({ layer, head, rows }) {
    const key = keyOf(layer, head);
    if (!kept.has(key) && key !== wanted) return;
    const triangle = use(key);
    const from = triangle.n;
    for (const { i, bytes } of rows) takeRow(key, triangle, i, bytes);
    if (triangle.n > from) announce(layer, head, from);
  }

  /** Resolves to false when the server had nothing new, so that asking again at once would be no use. */
  async function fetchRows(layer, head) {
    const key = keyOf(layer, head);
    const triangle = use(key);
    const { epoch } = store;
    const reply = await glassbox.rpc('matrix', { layer, head, from: triangle.n });
    if (reply.epoch !== epoch || store.epoch !== epoch || kept.get(key) !== triangle) return true;
    const from = triangle.n;
    triangle.append(reply.from, glassbox.b64(reply.data));
    takeWaiting(key, triangle);
    if (triangle.n > from) announce(layer, head, from);
    return triangle.n > from;
  }

  /**
   * Pulls the rows of a head that are not here; a pull under way is not doubled. Fails as the server's reply
   * does.
   */
  function pull(layer, head) {
    const key = keyOf(layer, head);
    if (!pulls.has(key)) pulls.set(key, fetchRows(layer, head).finally(() => pulls.delete(key)));
    return pulls.get(key);
  }

  const complete = (layer, head) => {
    const triangle = kept.get(keyOf(layer, head));
    return triangle != null && triangle.n >= store.rows;
  };

  // ---- keeping the selected head whole ----

  let timer = 0;
  let lost = false;

  function checkSoon(after = CHECK_MS) {
    if (!timer && !lost) timer = setTimeout(check, after);
  }

  function check() {
    timer = 0;
    const { layer, head } = store.selection;
    if (!store.sid || !store.rows || complete(layer, head)) return;
    pull(layer, head).then(
      (moved) => complete(layer, head) || checkSoon(moved ? CHECK_MS : RETRY_MS),
      (error) => {
        glassbox.emit('attention-failed', error.message);
        checkSoon(RETRY_MS);
      },
    );
  }

  // ---- the head whose rows the server pushes ----

  let told = '';
  let telling = false;

  /** Tells the server, one call at a time, the last choice always. */
  async function tell() {
    const { layer, head } = store.selection;
    const choice = `${store.sid} ${keyOf(layer, head)}`;
    if (telling || !store.sid || told === choice) return;
    telling = true;
    let wait = 0;
    try {
      await glassbox.rpc('select', { layer, head });
      told = choice;
    } catch {
      wait = RETRY_MS; // rows that are not pushed are pulled
    }
    telling = false;
    if (!lost) setTimeout(tell, wait);
  }

  /** Makes a head the one that is kept whole from now on, here and in what the server pushes. */
  function want(layer, head) {
    wanted = keyOf(layer, head);
    use(wanted);
    tell();
    if (!complete(layer, head)) check();
  }

  /** Rows of what was cut are forgotten in every head; rows before the cut stay true. */
  function cut(from) {
    waiting.clear();
    for (const triangle of kept.values()) triangle.truncate(from);
    announce(store.selection.layer, store.selection.head, from);
  }

  glassbox.on('row', takePushed);
  glassbox.on('tokens', ({ from, truncated }) => truncated && cut(from));
  glassbox.on('state', () => checkSoon());
  glassbox.on('lost', () => {
    lost = true;
  });

  glassbox.patterns = {
    Triangle, WEIGHT, rowStart, want, pull, complete, cut,
    /** The triangle of a head, or null when none of it is here. */
    get: (layer, head) => kept.get(keyOf(layer, head)) || null,
    /** Forgets every head: another conversation or another model. */
    clear() {
      kept.clear();
      waiting.clear();
    },
  };
})();
