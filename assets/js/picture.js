/**
 * Turns bytes of a pattern into pixels: an image off the screen that grows row by row and is painted anew
 * only when its scale, its colours or the part of the pattern that it shows have changed. One pixel is one
 * cell.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom, patterns } = glassbox;

  const LOG_FLOOR = 1e-3;
  const STEP = 64;

  /**
   * Share of the colour ramp (0 to 1) for a weight, by the name of the scale; `top` is the weight at its end.
   */
  const SCALES = {
    linear: (weight, top) => weight / top,
    sqrt: (weight, top) => Math.sqrt(weight / top),
    log: (weight, top) => Math.log(Math.max(weight, LOG_FLOOR) / LOG_FLOOR) / Math.log(top / LOG_FLOOR),
  };

  /** Weight at which the ramp ends: the largest one shown. */
  function topWeight(triangle, skipFirst) {
    const byte = skipFirst ? triangle.top : Math.max(triangle.top, triangle.first);
    return Math.max(2 * LOG_FLOOR, patterns.WEIGHT[byte]);
  }

  /** Index into the ramp for every byte. */
  function rampOf(scale, top) {
    const share = SCALES[scale] || SCALES.sqrt;
    return Uint8Array.from(patterns.WEIGHT, (weight) =>
      Math.round(255 * Math.max(0, Math.min(1, share(weight, top)))));
  }

  function colours(scale, top) {
    const { u32 } = dom.lut();
    return Uint32Array.from(rampOf(scale, top), (index) => u32[index]);
  }

  function packed(hex) {
    const [r, g, b] = dom.channels(hex);
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }

  const offscreen = () => {
    const here = typeof OffscreenCanvas !== 'undefined';
    return here ? new OffscreenCanvas(STEP, STEP) : document.createElement('canvas');
  };

  class Picture {
    constructor() {
      this.canvas = offscreen();
      this.key = '';
      this.done = 0;
      this.triangle = null;
      this.version = -1;
    }

    /**
     * Brings the image up to date and says where in it the view lies.
     * @param {object} triangle
     * @param {{x: number, y: number, n: number}} view the square of the pattern that is wanted, in tokens
     * @param {number} pixels side of the place where it will be drawn, in device pixels
     * @param {{scale: string, skipFirst: boolean}} look
     * @returns {{canvas: object, x: number, y: number, size: number}} the part of the canvas that is the view
     */
    update(triangle, view, pixels, look) {
      const level = Math.max(0, Math.ceil(Math.log2(view.n / Math.max(1, pixels))));
      const cell = 1 << level;
      const area = this.areaOf(view, cell);
      const top = topWeight(triangle, look.skipFirst);
      const { theme } = glassbox.store;
      const key = [level, area.x, area.y, area.size, top, look.scale, look.skipFirst, theme].join();
      const stale = key !== this.key || triangle !== this.triangle || triangle.version !== this.version;
      if (stale) this.reset(key, triangle, area, look, top);
      this.paint(triangle, level, area);
      const [x, y] = [view.x / cell - area.x, view.y / cell - area.y];
      return { canvas: this.canvas, x, y, size: view.n / cell };
    }

    /**
     * The whole cells around the view, rounded up so that a growing pattern does not need a new image each
     * row.
     */
    areaOf(view, cell) {
      const x = Math.floor(view.x / cell);
      const y = Math.floor(view.y / cell);
      const side = Math.max(Math.ceil((view.x + view.n) / cell) - x, Math.ceil((view.y + view.n) / cell) - y);
      return { x, y, size: Math.ceil(side / STEP) * STEP };
    }

    reset(key, triangle, area, look, top) {
      this.key = key;
      this.triangle = triangle;
      this.version = triangle.version;
      this.done = 0;
      this.colours = colours(look.scale, top);
      this.first = look.skipFirst ? packed(dom.css('--rs')) : null;
      if (this.canvas.width !== area.size) this.canvas.width = this.canvas.height = area.size;
      this.canvas.getContext('2d').clearRect(0, 0, area.size, area.size);
    }

    /** Paints rows that came since; the last pooled row of before may have changed and is painted again. */
    paint(triangle, level, area) {
      if (triangle.n <= this.done) return;
      const from = Math.max(0, (this.done >> level) - area.y);
      const to = Math.min(area.size, ((triangle.n - 1) >> level) + 1 - area.y);
      this.done = triangle.n;
      if (to <= from) return;
      const image = new ImageData(area.size, to - from);
      const pixels = new Uint32Array(image.data.buffer);
      const bytes = triangle.pooled(level);
      for (let r = from; r < to; r++) this.paintRow(pixels, (r - from) * area.size, bytes, area.y + r, area);
      this.canvas.getContext('2d').putImageData(image, 0, from);
    }

    paintRow(pixels, at, bytes, row, area) {
      const table = this.colours;
      const start = patterns.rowStart(row) + area.x;
      const count = Math.min(area.size, row + 1 - area.x);
      for (let c = 0; c < count; c++) pixels[at + c] = table[bytes[start + c]];
      if (this.first !== null && area.x === 0 && count > 0) pixels[at] = this.first;
    }
  }

  glassbox.picture = { Picture, SCALES, LOG_FLOOR, topWeight, rampOf };
})();
