/**
 * Turns a pattern into colours: which value is which colour, and the tiles painted, an image each off the screen, anew
 * only when their cells or their colours have changed. One pixel is one cell.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom, patterns, looks, TILE } = glassbox;

  const LOG_FLOOR = 1e-3;

  /** Share of the colour bar (0 to 1) for a share of its largest value, by the name of the scale. */
  const SCALES = {
    linear: (share) => share,
    sqrt: (share) => Math.sqrt(share),
    log: (share, top) => Math.log(Math.max(share, LOG_FLOOR / top) / (LOG_FLOOR / top)) / Math.log(top / LOG_FLOOR),
  };

  /** Scores are what the softmax takes: their differences count, so they have one scale, a linear one. */
  const scaleOf = (kind) => (kind === 'score' ? 'linear' : looks.scale);

  /**
   * Where the colour bar of a pattern begins and ends. The first token counts only where it is shown.
   * @returns {{low: number, high: number}}
   */
  function barOf({ sight, low, top, first }) {
    const high = looks.sink === 'in' ? Math.max(top, first) : top;
    if (sight.kind === 'score') return { low, high: Math.max(high, low + 1e-3) };
    return { low: sight.kind === 'difference' ? -high : 0, high: Math.max(high, 2 * LOG_FLOOR) };
  }

  /** Place of a value on the bar, 0 to 1; on a diverging one -1 to 1. */
  function shareOf(kind, { low, high }, value) {
    if (kind === 'score') return Math.max(0, Math.min(1, (value - low) / (high - low)));
    const share = SCALES[scaleOf(kind)](Math.min(1, Math.abs(value) / high), high);
    return kind === 'difference' ? Math.sign(value) * share : share;
  }

  /** The value at a place of the bar: what `shareOf` undoes. */
  function valueAt(kind, { low, high }, share) {
    if (kind === 'score') return low + share * (high - low);
    const undo = {
      linear: (s) => s,
      sqrt: (s) => s * s,
      log: (s) => (s ? (LOG_FLOOR / high) * (high / LOG_FLOOR) ** s : 0),
    };
    return high * undo[scaleOf(kind)](share);
  }

  // ---- colours ----

  const pack = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

  /** 256 colours from the first stop to the last by way of those between. */
  function between(stops) {
    const colours = stops.map((name) => dom.channels(dom.css(name)));
    return Array.from({ length: 256 }, (_, i) => {
      const at = (i / 255) * (stops.length - 1);
      const low = Math.min(stops.length - 2, Math.floor(at));
      return colours[low].map((c, j) => Math.round(c + (colours[low + 1][j] - c) * (at - low)));
    });
  }

  let sides = { theme: '', more: [], less: [] };

  /** The two sides of a diverging scale: what the pinned one has more of, and less of. */
  function diverging() {
    const { theme } = glassbox.store;
    if (sides.theme !== theme || !sides.more.length) {
      const more = between(['--at0', '--at1', '--at2', '--at3']);
      sides = { theme, more, less: between(['--at0', '--df1', '--df2', '--df3']) };
    }
    return sides;
  }

  /** A share of a bar as a colour of the page: 'rgb(…)'. */
  function colourOf(kind, share) {
    const at = Math.round(255 * Math.abs(share));
    if (kind !== 'difference') return dom.lut().rgb[at];
    return `rgb(${diverging()[share < 0 ? 'less' : 'more'][at]})`;
  }

  /** A bar as a CSS gradient. */
  function gradient(kind) {
    if (kind !== 'difference') return dom.ramp();
    const shares = [-1, -0.66, -0.33, 0, 0.33, 0.66, 1];
    return `linear-gradient(to right,${shares.map((share) => colourOf(kind, share)).join(',')})`;
  }

  /** Colour of every byte; 0 is nothing at all: below the threshold, or after the query. */
  function coloursOf(pattern) {
    const { kind } = pattern.sight;
    const bar = barOf(pattern);
    const { u32 } = dom.lut();
    return Uint32Array.from(pattern.values, (value) => {
      if (!Number.isFinite(value)) return 0;
      const share = shareOf(kind, bar, value);
      if (looks.least && Math.abs(share) < looks.least) return 0;
      if (kind === 'difference') return pack(diverging()[share < 0 ? 'less' : 'more'][Math.round(255 * Math.abs(share))]);
      return u32[Math.round(255 * share)];
    });
  }

  // ---- images ----

  const images = new WeakMap();

  const offscreen = () => {
    const here = typeof OffscreenCanvas !== 'undefined';
    const canvas = here ? new OffscreenCanvas(TILE, TILE) : document.createElement('canvas');
    return Object.assign(canvas, { width: TILE, height: TILE });
  };

  const lookKey = (pattern) => {
    const { low, high } = barOf(pattern);
    return [low, high, looks.scale, looks.sink, looks.least, glassbox.store.theme, pattern.low, pattern.high].join();
  };

  /** Cells of a row left of the diagonal that lie in a tile. */
  const cellsOf = (tile, r) => Math.min(TILE, tile.y * TILE + r + 1 - tile.x * TILE);

  function paintRow(pixels, at, tile, r, table, firstColour) {
    const { cells } = tile;
    const from = r * TILE;
    const count = cellsOf(tile, r);
    for (let c = 0; c < count; c++) pixels[at + c] = table[cells[from + c]];
    if (tile.x || count < 1) return;
    if (!tile.level && firstColour !== null) pixels[at] = firstColour;
    if (tile.level && firstColour === null && tile.first)
      pixels[at] = table[Math.max(tile.first[r], cells[from])];
  }

  /** The image of a tile: the rows that there are. */
  function imageOf(tile, pattern, key) {
    const made = images.get(tile) || { canvas: offscreen(), key: '', version: -1, rows: 0 };
    images.set(tile, made);
    const rows = Math.max(0, Math.min(TILE, Math.ceil(pattern.n / (1 << tile.level)) - tile.y * TILE));
    if (made.key === key && made.version === tile.version && made.rows === rows) return made.canvas;
    Object.assign(made, { key, version: tile.version, rows });
    const table = coloursOf(pattern);
    const first = looks.sink === 'out' ? pack(dom.channels(dom.css('--rs'))) : null;
    const image = new ImageData(TILE, TILE);
    const pixels = new Uint32Array(image.data.buffer);
    for (let r = 0; r < rows; r++) paintRow(pixels, r * TILE, tile, r, table, first);
    made.canvas.getContext('2d').putImageData(image, 0, 0);
    return made.canvas;
  }

  /** Level at which one cell is about a pixel of the screen. */
  const levelFor = (view, pixels) => Math.max(0, Math.ceil(Math.log2(view.n / Math.max(1, pixels)) - 0.01));

  /** Places [level, y, x] of the tiles that a view needs, left of the diagonal. */
  function placesIn(view, level, n) {
    const side = TILE << level;
    const [x0, y0] = [Math.floor(view.x / side), Math.floor(view.y / side)];
    const x1 = Math.floor(Math.min(view.x + view.n, n - 0.5) / side);
    const y1 = Math.floor(Math.min(view.y + view.n, n - 0.5) / side);
    const places = [];
    for (let y = y0; y <= y1; y++) for (let x = x0; x <= Math.min(x1, y); x++) places.push([level, y, x]);
    return places;
  }

  /**
   * Draws the part of a pattern that the view shows: the overview, and over it whatever finer tiles are here. Those
   * that are missing are asked for.
   * @param {CanvasRenderingContext2D} g
   * @param {object} pattern
   * @param {{x: number, y: number, n: number}} view the square of the pattern that is wanted, in tokens
   * @param {{x0: number, size: number}} box where it goes, in CSS pixels
   */
  function draw(g, pattern, view, { x0, size }) {
    const density = window.devicePixelRatio || 1;
    const level = levelFor(view, size * density);
    const key = lookKey(pattern);
    g.save();
    g.beginPath();
    g.rect(x0, 0, size, size);
    g.clip();
    g.imageSmoothingEnabled = false;
    const put = (tile) => {
      const side = (TILE << tile.level) * (size / view.n);
      const left = x0 + tile.x * side - view.x * (size / view.n);
      const top = tile.y * side - view.y * (size / view.n);
      g.clearRect(left, top, side, side); // a coarser cell must not show where a finer one is left out
      g.drawImage(imageOf(tile, pattern, key), left, top, side, side);
    };
    const places = level < pattern.overview.level ? placesIn(view, level, pattern.n) : [];
    const here = places.map((place) => pattern.tile(...place));
    if (!places.length || here.includes(null)) put(pattern.overview);
    const half = level + 1;
    if (here.includes(null) && half < pattern.overview.level) {
      const coarser = placesIn(view, half, pattern.n).map((place) => pattern.tile(...place));
      for (const tile of coarser) if (tile) put(tile);
    }
    for (const tile of here) if (tile) put(tile);
    g.restore();
    if (places.length) patterns.pullTiles(pattern, places);
  }

  glassbox.picture = { draw, barOf, shareOf, valueAt, colourOf, gradient, scaleOf, SCALES, LOG_FLOOR };
})();
