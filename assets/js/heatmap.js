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
  const LABELS_FROM = 2.5; // pixels of a token's cell from which on tokens are labelled and not messages
  const ROW_LABEL = 13; // pixels between two labels
  const COLUMN_LABEL = 40;
  const STEPS = [1, 2, 3, 4, 5, 10, 15, 20, 25, 50];
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
      this.pattern = null;
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
      if (this.zoomed && !rows) return; // what an address asks for, before there is anything
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
      return query < this.rows && query >= this.pattern.start && key <= query ? { query, key } : null;
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
      return this.pattern ? this.pattern.n : 0;
    }

    // ---- drawing ----

    /** Draws a pattern, as far as it is here; null draws the shape that it will have. */
    draw(pattern) {
      this.pattern = pattern;
      this.paint(dom.fitCanvas(this.canvas));
    }

    /** Draws on any surface that has the size of the canvas: a picture to be saved, for one. */
    paint({ g, w, h }) {
      const size = Math.floor(Math.min(w - LEFT - 1, h - BOTTOM - 1));
      this.fitView(this.rows);
      this.box = { x0: LEFT, size: Math.max(size, 0), cell: size / this.view.n, w, h };
      if (size < 40) return;
      if (!this.rows) {
        this.drawOutline(g);
        return;
      }
      glassbox.picture.draw(g, this.pattern, this.view, this.box);
      this.drawMissing(g);
      this.drawBands(g);
      if (this.box.cell >= LABELS_FROM) this.drawTokens(g);
      else this.drawRoles(g);
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

    /** Rows whose queries were not kept are hatched, so that they are not taken for rows that read nothing. */
    drawMissing(g) {
      const { x0, size } = this.box;
      const [top, bottom] = this.stretch(0, this.pattern.start, this.view.y);
      if (bottom <= top) return;
      const right = (i) => Math.min(size, Math.max(0, this.columnX(i) - x0));
      g.save();
      g.beginPath();
      g.moveTo(x0, top);
      g.lineTo(x0 + right(this.view.y), top);
      g.lineTo(x0 + right(this.pattern.start), bottom);
      g.lineTo(x0, bottom);
      g.clip();
      g.strokeStyle = dom.css('--line2');
      g.lineWidth = 1;
      g.beginPath();
      for (let at = -size; at < size; at += 7) {
        g.moveTo(x0 + at, bottom);
        g.lineTo(x0 + at + (bottom - top), top);
      }
      g.stroke();
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

    /** Labels of as many tokens as can be read: each, or each second, fifth and so on. */
    drawTokens(g) {
      g.fillStyle = dom.css('--ink2');
      g.textBaseline = 'middle';
      const text = (i) => dom.marked(dom.tokenText(store.tokens[i]));
      const { x0, size, cell } = this.box;
      g.textAlign = 'right';
      for (const i of this.labelled(this.view.y, ROW_LABEL)) {
        const y = this.rowY(i + 0.5);
        if (y > 5 && y < size - 4) g.fillText(clipText(g, text(i), LEFT - 14), x0 - 12, y);
      }
      g.textAlign = 'center';
      const apart = this.labelled(this.view.x, COLUMN_LABEL);
      const width = Math.max(cell, apart.length > 1 ? (apart[1] - apart[0]) * cell : 0) - 5;
      for (const i of apart) {
        const x = this.columnX(i + 0.5);
        const room = Math.min(width, 2 * (x - x0) + 24, 2 * (this.box.w - x));
        if (x > x0 && x < x0 + size && room > 14) g.fillText(clipText(g, text(i), room), x, size + 17);
      }
    }

    /** Tokens of the view that get a label, `apart` pixels apart at least. */
    labelled(from, apart) {
      const step = STEPS.find((n) => n * this.box.cell >= apart) || STEPS.at(-1);
      const last = Math.min(store.tokens.length, Math.ceil(from + this.view.n));
      const list = [];
      for (let i = Math.ceil(Math.max(0, Math.floor(from)) / step) * step; i < last; i += step) list.push(i);
      return list;
    }
  }

  glassbox.heatmap = { Heatmap, roleRuns, clipText };
})();
