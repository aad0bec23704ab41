/**
 * The heatmap of one head: row = the token that reads (query), column = the token read (key). Holds the view
 * (zoom and pan), draws image, role bands and token labels. What moves with the pointer is drawn on a canvas
 * above (overlay.js), so that a hover never touches the image.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom } = glassbox;

  const LEFT = 62;
  const BOTTOM = 26;
  const FEWEST = 12;
  const ROW_LABELS = 11;
  const COLUMN_LABELS = 24;
  const BANDS = { system: '--rs', user: '--ru', assistant: '--ra', text: '--ru' };

  /** Role bands: [role, first token, token after the last]; template tokens have none. */
  function roleRuns(tokens) {
    const runs = [];
    for (let from = 0, i = 1; i <= tokens.length; i++) {
      const { role, m } = tokens[from];
      if (i < tokens.length && tokens[i].role === role && tokens[i].m === m) continue;
      if (role in BANDS) runs.push([role, from, i]);
      from = i;
    }
    return runs;
  }

  /** Text cut to a width on a canvas, with an ellipsis. */
  function clipText(g, text, width) {
    if (g.measureText(text).width <= width) return text;
    let cut = text.length;
    while (cut > 0 && g.measureText(`${text.slice(0, cut)}…`).width > width) cut--;
    return `${text.slice(0, cut)}…`;
  }

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  class Heatmap {
    /** @param {HTMLCanvasElement} canvas */
    constructor(canvas) {
      this.canvas = canvas;
      this.picture = new glassbox.picture.Picture();
      this.view = { x: 0, y: 0, n: FEWEST };
      this.zoomed = false;
      this.room = 0;
      this.runs = [];
      /** What is drawn: x0 left edge, size side, cell side of one token, all CSS pixels. */
      this.box = { x0: LEFT, size: 0, cell: 0, w: 0, h: 0 };
    }

    // ---- view ----

    /**
     * Tokens that the whole picture spans: while text streams, room is kept so that rows fill it from above.
     */
    span(rows) {
      const n = Math.max(FEWEST, rows, Math.min(store.tokens.length, rows + 1));
      if (!store.streaming) this.room = 0;
      else if (n > this.room || this.room > 1.5 * n) this.room = 16 * Math.ceil((n * 1.1 + 4) / 16);
      return Math.max(n, this.room);
    }

    fitView(rows) {
      const whole = this.span(rows);
      const { view } = this;
      if (!this.zoomed || view.n >= whole) {
        this.zoomed = false;
        this.view = { x: 0, y: 0, n: whole };
        return;
      }
      view.x = clamp(view.x, 0, whole - view.n);
      view.y = clamp(view.y, 0, whole - view.n);
    }

    /** Zooms by a factor about a point of the picture (shares of its side). */
    zoom(factor, fx, fy) {
      const { view } = this;
      const whole = this.span(this.rows);
      const n = clamp(view.n / factor, Math.min(FEWEST, whole), whole);
      this.zoomed = n < whole;
      this.view = { n, x: view.x + fx * (view.n - n), y: view.y + fy * (view.n - n) };
      this.fitView(this.rows);
    }

    /** Moves the view by CSS pixels. */
    pan(dx, dy) {
      this.view.x -= dx / this.box.cell;
      this.view.y -= dy / this.box.cell;
      this.fitView(this.rows);
    }

    reset() {
      this.zoomed = false;
      this.fitView(this.rows);
    }

    /** Brings a row into a zoomed view. */
    reveal(query) {
      const { view } = this;
      if (!this.zoomed || (query >= view.y && query + 1 <= view.y + view.n)) return;
      view.y = query + 0.5 - view.n / 2;
      view.x = Math.min(view.x, query);
      this.fitView(this.rows);
    }

    // ---- places ----

    rowY(query) {
      return (query - this.view.y) * this.box.cell;
    }

    columnX(key) {
      return this.box.x0 + (key - this.view.x) * this.box.cell;
    }

    /** Shares of the picture's side for a point of the page. */
    shareAt(clientX, clientY) {
      const { left, top } = this.canvas.getBoundingClientRect();
      const { x0, size } = this.box;
      return [(clientX - left - x0) / size, (clientY - top) / size];
    }

    /** Query and key under a point of the page, or null outside the lower triangle. */
    cellAt(clientX, clientY) {
      const [fx, fy] = this.shareAt(clientX, clientY);
      if (fx < 0 || fx >= 1 || fy < 0 || fy >= 1) return null;
      const key = Math.floor(this.view.x + fx * this.view.n);
      const query = Math.floor(this.view.y + fy * this.view.n);
      return query < this.rows && key <= query ? { query, key } : null;
    }

    /** Whether the corner at the top right, w by h CSS pixels, holds no cell. */
    cornerFree(w, h) {
      const { box, view } = this;
      if (!box.cell) return false;
      const key = view.x + (box.w - w - box.x0) / box.cell;
      const query = view.y + h / box.cell;
      return key > Math.min(query, this.rows) + 1 || key > view.x + view.n;
    }

    get rows() {
      return this.triangle ? this.triangle.n : 0;
    }

    // ---- drawing ----

    /** Draws a head's triangle, as far as it is here. */
    draw(triangle, look) {
      this.triangle = triangle;
      const { g, w, h } = dom.fitCanvas(this.canvas);
      const size = Math.floor(Math.min(w - LEFT - 1, h - BOTTOM - 1));
      if (size < 40) return;
      this.fitView(this.rows);
      this.box = { x0: LEFT, size, cell: size / this.view.n, w, h };
      if (!this.rows) return this.drawOutline(g);
      this.drawImage(g, look);
      this.drawBands(g);
      if (this.box.cell >= ROW_LABELS) return this.drawTokens(g);
      return this.drawRoles(g);
    }

    /** The shape that the picture will have, while there is none. */
    drawOutline(g) {
      const { x0, size } = this.box;
      g.strokeStyle = dom.css('--line');
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(x0 + 0.5, 0.5);
      g.lineTo(x0 + 0.5, size - 0.5);
      g.lineTo(x0 + size - 0.5, size - 0.5);
      g.closePath();
      g.stroke();
    }

    drawImage(g, look) {
      const { x0, size } = this.box;
      const density = window.devicePixelRatio || 1;
      const part = this.picture.update(this.triangle, this.view, size * density, look);
      g.save();
      g.beginPath();
      g.rect(x0, 0, size, size);
      g.clip();
      g.imageSmoothingEnabled = false;
      g.drawImage(part.canvas, part.x, part.y, part.size, part.size, x0, 0, size, size);
      g.restore();
    }

    /**
     * Where a run of tokens lies on both axes, cut to the view: [start, end] in CSS pixels from the origin.
     */
    stretch(from, to, offset) {
      const { cell, size } = this.box;
      return [clamp((from - offset) * cell, 0, size), clamp((to - offset) * cell, 0, size)];
    }

    drawBands(g) {
      const { x0, size } = this.box;
      for (const [role, from, to] of this.runs) {
        g.fillStyle = dom.css(BANDS[role]);
        const [top, bottom] = this.stretch(from, to, this.view.y);
        const [left, right] = this.stretch(from, to, this.view.x);
        if (bottom > top) g.fillRect(x0 - 8, top, 4, bottom - top);
        if (right > left) g.fillRect(x0 + left, size + 4, right - left, 4);
      }
    }

    drawRoles(g) {
      const { x0, size } = this.box;
      g.fillStyle = dom.css('--ink3');
      g.textBaseline = 'middle';
      for (const [role, from, to] of this.runs) {
        const name = glassbox.t(`band_${role}`);
        const [top, bottom] = this.stretch(from, to, this.view.y);
        const [left, right] = this.stretch(from, to, this.view.x);
        g.textAlign = 'right';
        if (bottom - top > 11) g.fillText(name, x0 - 14, (top + bottom) / 2);
        g.textAlign = 'center';
        if (right - left > g.measureText(name).width) g.fillText(name, x0 + (left + right) / 2, size + 18);
      }
    }

    drawTokens(g) {
      const { view } = this;
      const { x0, size, cell } = this.box;
      const last = Math.min(store.tokens.length, Math.ceil(Math.max(view.x, view.y) + view.n));
      g.fillStyle = dom.css('--ink2');
      g.textBaseline = 'middle';
      for (let i = Math.floor(Math.min(view.x, view.y)); i < last; i++) {
        const text = dom.marked(dom.tokenText(store.tokens[i]));
        const y = this.rowY(i + 0.5);
        const x = this.columnX(i + 0.5);
        g.textAlign = 'right';
        if (y > 0 && y < size) g.fillText(clipText(g, text, LEFT - 14), x0 - 12, y);
        g.textAlign = 'center';
        if (cell < COLUMN_LABELS || x < x0 || x > x0 + size) continue;
        g.fillText(clipText(g, text, cell - 4), x, size + 17);
      }
    }
  }

  glassbox.heatmap = { Heatmap, roleRuns, clipText };
})();
