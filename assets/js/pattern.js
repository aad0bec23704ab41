/**
 * One pattern of attention as bytes: an overview, which holds all of it in one tile, and the finer tiles that were looked
 * at; rows that are pushed go into every tile. What the bytes mean is said by the server (demo/matrix.py).
 */
(() => {
  'use strict';
  const { glassbox } = window;

  const TILE = 256; // cells along a tile's side
  const KEPT_ROWS = 512; // pushed rows

  /** What each byte of a pattern means, by its kind (see demo/matrix.py). */
  function valuesOf(kind, low, high) {
    const at = (byte) => {
      if (kind === 'score') return byte ? low + ((byte - 1) / 254) * (high - low) : -Infinity;
      if (kind === 'difference') return Math.sign(byte - 128) * high * ((byte - 128) / 127) ** 2;
      return high * (byte / 255) ** 2;
    };
    return Float32Array.from({ length: 256 }, (_, byte) => at(byte));
  }

  /** A square of cells; those left of the diagonal alone are ever read. `first` holds the first key apart. */
  class Tile {
    constructor(level, y, x) {
      Object.assign(this, { level, y, x, n: 0, version: 0, first: null });
      this.cells = new Uint8Array(TILE * TILE);
    }

    /** Takes all cells there are after n rows of the pattern. */
    fill(n, [height, width, cells, first]) {
      this.n = n;
      this.cells.fill(0);
      for (let r = 0; r < height; r++) this.cells.set(cells.subarray(r * width, (r + 1) * width), r * TILE);
      if (first) (this.first ||= new Uint8Array(TILE)).set(first);
      this.version++;
    }

    /** Whether rows are missing, the pattern having n. */
    lacks(n) {
      return this.n < n && ((this.y + 1) * TILE) << this.level > this.n;
    }

    /** Takes the next row of the pattern into its cells. */
    take(i, bytes) {
      if (i === this.n) this.n++;
      const { level, x } = this;
      const r = (i >> level) - this.y * TILE;
      if (r < 0 || r >= TILE) return;
      const at = r * TILE;
      if (!level) this.cells.set(bytes.subarray(x * TILE, Math.min(bytes.length, (x + 1) * TILE)), at);
      else this.pool(at - x * TILE, bytes);
      if (level && this.first) this.first[r] = Math.max(this.first[r], bytes[0]);
      this.version++;
    }

    pool(at, bytes) {
      const { cells, level, x } = this;
      const to = Math.min(bytes.length, ((x + 1) * TILE) << level);
      for (let k = Math.max(1, (x * TILE) << level); k < to; k++) {
        const cell = at + (k >> level);
        if (bytes[k] > cells[cell]) cells[cell] = bytes[k];
      }
    }
  }

  class Pattern {
    constructor(sight) {
      Object.assign(this, { sight, n: 0, start: 0, low: 0, high: 1, top: 0, first: 0, stale: true });
      /** @type {Tile|null} */ this.overview = null;
      /** @type {Map<string, Tile>} */ this.tiles = new Map();
      /** @type {Map<number, Uint8Array>} rows that were pushed */ this.recent = new Map();
      this.values = valuesOf(sight.kind, 0, 1);
      this.busy = false;
    }

    get bytes() {
      return TILE * TILE * (1 + this.tiles.size);
    }

    takeOverview(reply) {
      const [level, , , height, width, cells, first] = reply.tile;
      const old = this.overview;
      if (reply.low !== this.low || reply.high !== this.high) this.tiles.clear();
      Object.assign(this, { start: reply.start, low: reply.low, high: reply.high });
      Object.assign(this, { top: reply.top, first: reply.first, stale: false });
      this.values = valuesOf(this.sight.kind, reply.low, reply.high);
      this.overview = old && old.level === level ? old : new Tile(level, 0, 0);
      this.overview.fill(reply.n, [height, width, glassbox.b64(cells), first && glassbox.b64(first)]);
      const last = this.n;
      this.n = reply.n;
      for (const [key, tile] of this.tiles) if (tile.lacks(reply.n)) this.tiles.delete(key);
      for (let i = reply.n; i < last && this.recent.has(i); i++) this.extend(i, this.recent.get(i));
    }

    takeTile([level, y, x, height, width, cells, first], n) {
      const tile = new Tile(level, y, x);
      tile.fill(n, [height, width, glassbox.b64(cells), first && glassbox.b64(first)]);
      for (let i = n; i < this.n && this.recent.has(i); i++) tile.take(i, this.recent.get(i));
      if (!tile.lacks(this.n)) this.tiles.set(`${level}/${y}/${x}`, tile);
    }

    /** Takes a pushed row; false when rows before it are missing. */
    push(i, bytes) {
      if (i < this.n) return true;
      if (i > this.n || !this.overview) return false;
      this.recent.set(i, bytes);
      this.recent.delete(i - KEPT_ROWS);
      this.extend(i, bytes);
      return true;
    }

    extend(i, bytes) {
      this.n = i + 1;
      this.overview.take(i, bytes);
      for (const tile of this.tiles.values()) tile.take(i, bytes);
      if (i >= TILE << this.overview.level) this.stale = true; // it has outgrown its overview
      const { values } = this;
      this.first = Math.max(this.first, values[bytes[0]]);
      for (let k = 1; k <= i; k++) if (values[bytes[k]] > this.top) this.top = values[bytes[k]];
    }

    /** Rows from `n` on belong to a text that was cut. */
    cut(n) {
      this.stale = true;
      if (n >= this.n) return;
      this.n = n;
      for (const i of this.recent.keys()) if (i >= n) this.recent.delete(i);
      for (const [key, { level, y }] of this.tiles) if (((y + 1) * TILE) << level > n) this.tiles.delete(key);
    }

    tile(level, y, x) {
      const { overview } = this;
      if (overview && level === overview.level && !y && !x) return overview;
      return this.tiles.get(`${level}/${y}/${x}`) || null;
    }

    /** A row as rounded as the picture; null where only exact ones would do. */
    row(i) {
      if (i < this.start || i >= this.n) return null;
      const { overview, values } = this;
      const whole = overview && overview.level === 0 && i < TILE;
      const bytes = this.recent.get(i) || (whole ? overview.cells.subarray(i * TILE, i * TILE + i + 1) : null);
      return bytes && Float32Array.from(bytes, (byte) => values[byte]);
    }
  }

  Object.assign(glassbox, { Pattern, TILE });
})();
