/**
 * The view of two columns: every token that reads on the left, what is read on the right, a line for each weight. Both
 * columns scroll; the selected or hovered token's lines stand out.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, TILE } = glassbox;

  const ROW = 18;
  const PAD = 22; // room above for the columns' names
  const EDGE = 0.3; // share of the width that a column takes
  const FAINT = 0.03; // share of the bar below which a line is not worth drawing
  const OTHERS = 0.35; // how strong the other tokens' lines stay

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  class Lines {
    /** @param {HTMLCanvasElement} canvas */
    constructor(canvas) {
      this.canvas = canvas;
      /** first token shown in each column */ this.tops = { query: 0, key: 0 };
      this.shown = -1;
      this.pattern = null;
      this.attach();
    }

    get count() {
      return Math.max(1, Math.floor((this.h - PAD) / ROW));
    }

    /** A cell of the finest tiles; NaN while its tile is on the way. */
    cell(query, key) {
      const { pattern } = this;
      const [y, x] = [Math.floor(query / TILE), Math.floor(key / TILE)];
      const tile = pattern.tile(0, y, x);
      return tile ? pattern.values[tile.cells[(query % TILE) * TILE + (key % TILE)]] : NaN;
    }

    // ---- the window ----

    /** Keeps both columns inside the text, and a newly selected token in sight. */
    fit(query) {
      const most = Math.max(0, store.tokens.length - this.count);
      if (query !== this.shown) {
        this.shown = query;
        const { tops, count } = this;
        if (query < tops.query || query >= tops.query + count) tops.query = query - Math.floor(count * 0.7);
        if (query < tops.key || query >= tops.key + count) tops.key = query - Math.floor(count * 0.9);
        this.looked = -1;
      }
      this.lookAtBest(query);
      for (const side of ['query', 'key']) this.tops[side] = clamp(this.tops[side], 0, most);
    }

    /** Once a token is chosen, the column of keys goes to what it reads most, unless that is in sight. */
    lookAtBest(query) {
      if (store.selection.follow || this.looked === query || store.hover) return;
      const shown = glassbox.rows.row(this.pattern.sight, query);
      if (!shown || !shown.exact) return;
      this.looked = query;
      const [best] = glassbox.readout.topKeys(shown.weights, 1, query > 0 ? 1 : 0, this.pattern.sight.kind);
      const { tops, count } = this;
      if (best < tops.key || best >= tops.key + count) tops.key = best - Math.floor(count / 2);
    }

    askTiles() {
      const { tops, count, pattern } = this;
      const last = pattern.n - 1;
      const places = [];
      const [y0, y1] = [tops.query, Math.min(last, tops.query + count)].map((i) => Math.floor(i / TILE));
      const [x0, x1] = [tops.key, Math.min(last, tops.key + count)].map((i) => Math.floor(i / TILE));
      for (let y = y0; y <= y1; y++) for (let x = x0; x <= Math.min(x1, y); x++) places.push([0, y, x]);
      if (places.length) glassbox.patterns.pullTiles(pattern, places);
    }

    // ---- drawing ----

    draw(pattern, { query, key }) {
      this.pattern = pattern;
      const surface = dom.fitCanvas(this.canvas);
      Object.assign(this, { w: surface.w, h: surface.h });
      if (!pattern || this.h < PAD + ROW) return;
      this.fit(store.selection.position);
      this.askTiles();
      this.paint(surface, this.focusOf(query, key));
    }

    /** Draws on any surface that has the size of the canvas. */
    paint({ g }, focus = this.focusOf(store.selection.position, -1)) {
      this.drawLines(g, focus);
      this.drawColumn(g, 'query', focus.query);
      this.drawColumn(g, 'key', focus.key);
      this.drawOutside(g, focus.query);
    }

    /** What stands out: all readers of a key that is pointed at, else what one token reads. */
    focusOf(query, key) {
      const readers = store.hover && store.hover.key >= 0 && !(store.hover.query >= 0);
      return { query: readers ? -1 : query, key };
    }

    y(side, i) {
      return PAD + (i - this.tops[side] + 0.5) * ROW;
    }

    drawLines(g, focus) {
      const { pattern, tops, count, w } = this;
      const bar = glassbox.picture.barOf(pattern);
      const { kind } = pattern.sight;
      const [left, right] = [w * EDGE + 4, w * (1 - EDGE) - 4];
      const skip = glassbox.looks.sink === 'out' ? 1 : 0;
      for (let q = Math.max(tops.query, pattern.start); q < Math.min(tops.query + count, pattern.n); q++) {
        for (let k = Math.max(tops.key, q ? skip : 0); k < Math.min(tops.key + count, q + 1); k++) {
          const share = glassbox.picture.shareOf(kind, bar, this.cell(q, k));
          if (!(Math.abs(share) >= Math.max(FAINT, glassbox.looks.least))) continue;
          const bright = focus.query >= 0 ? q === focus.query : k === focus.key;
          g.globalAlpha = bright ? 1 : OTHERS;
          const strength = bright ? 0.25 + 0.75 * Math.abs(share) : Math.abs(share);
          g.strokeStyle = `rgba(${dom.css(share < 0 ? '--df' : '--at')},${strength.toFixed(3)})`;
          g.lineWidth = bright ? 1 + 3 * Math.abs(share) : 1;
          this.line(g, left, this.y('query', q), right, this.y('key', k));
        }
      }
      g.globalAlpha = 1;
    }

    line(g, x0, y0, x1, y1) {
      const middle = (x0 + x1) / 2;
      g.beginPath();
      g.moveTo(x0, y0);
      g.bezierCurveTo(middle, y0, middle, y1, x1, y1);
      g.stroke();
    }

    drawColumn(g, side, focus) {
      const { tops, count, w } = this;
      const isQuery = side === 'query';
      const x = isQuery ? w * EDGE : w * (1 - EDGE);
      const width = w * EDGE - 44;
      g.textBaseline = 'middle';
      g.textAlign = isQuery ? 'right' : 'left';
      g.fillStyle = dom.css(isQuery ? '--q' : '--k');
      g.fillText(glassbox.t(isQuery ? 'attn_reader' : 'attn_read'), x, 9);
      for (let i = tops[side], n = 0; n < count && i < store.tokens.length; i++, n++) {
        const y = this.y(side, i);
        const chosen = i === focus;
        g.font = `${chosen ? '600 ' : ''}11px ${dom.css('--sans')}`;
        g.fillStyle = dom.css(chosen ? (isQuery ? '--q' : '--k') : '--ink2');
        const text = glassbox.heatmap.clipText(g, dom.marked(dom.tokenText(store.tokens[i])), width);
        g.fillText(text, x, y);
        g.font = `10px ${dom.css('--sans')}`;
        g.fillStyle = dom.css('--ink3');
        g.fillText(i, isQuery ? x - width - 8 : x + width + 8 + g.measureText(String(i)).width, y);
      }
    }

    /** How much of the row in focus goes to keys that are out of sight. */
    drawOutside(g, query) {
      const shown = query >= 0 ? glassbox.rows.row(this.pattern.sight, query) : null;
      if (!shown || !['weight', 'rest'].includes(this.pattern.sight.kind)) return;
      const { tops, count } = this;
      const sum = (from, to) => shown.weights.slice(Math.max(0, from), Math.max(0, to)).reduce((a, b) => a + b, 0);
      const [above, below] = [sum(0, tops.key), sum(tops.key + count, query + 1)];
      g.font = `11px ${dom.css('--sans')}`;
      g.fillStyle = dom.css('--ink3');
      g.textAlign = 'center';
      const x = this.w / 2;
      if (above >= 0.001) g.fillText(glassbox.t('attn_above', dom.pct(above)), x, 9);
      if (below >= 0.001) g.fillText(glassbox.t('attn_below', dom.pct(below)), x, this.h - 7);
    }

    // ---- pointer and wheel ----

    /** Column and token under a point of the page. */
    at(event) {
      const { left, top, width } = this.canvas.getBoundingClientRect();
      const side = event.clientX - left < width / 2 ? 'query' : 'key';
      const i = this.tops[side] + Math.floor((event.clientY - top - PAD) / ROW);
      return { side, i: event.clientY - top >= PAD && i < store.tokens.length ? i : -1 };
    }

    attach() {
      const { canvas } = this;
      canvas.addEventListener('pointermove', (event) => {
        const { side, i } = this.at(event);
        glassbox.hoverAt(i < 0 ? null : { [side]: i });
      });
      canvas.addEventListener('pointerleave', () => glassbox.hoverAt(null));
      canvas.addEventListener('click', (event) => {
        const { i } = this.at(event);
        if (i < 0) return;
        glassbox.hoverAt(null);
        this.shown = i; // what was clicked is in sight already
        glassbox.select({ position: i });
      });
      canvas.addEventListener('wheel', (event) => this.wheel(event), { passive: false });
      canvas.addEventListener('keydown', (event) => {
        const by = { ArrowUp: -1, ArrowDown: 1, PageUp: -this.count, PageDown: this.count }[event.key];
        if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        glassbox.select({ position: store.selection.position + by });
      });
    }

    wheel(event) {
      event.preventDefault();
      const rows = (event.deltaY * [1, ROW, 400][event.deltaMode || 0]) / ROW;
      const { side } = this.at(event);
      this.rest = (this.rest || 0) + rows;
      const whole = Math.trunc(this.rest);
      this.rest -= whole;
      this.tops[side] += whole;
      if (whole) glassbox.emit('attention');
    }
  }

  glassbox.Lines = Lines;
})();
