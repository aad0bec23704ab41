/**
 * The head grid: one cell a head, layers across, heads down under the key/value head that they share, coloured by a
 * metric or showing a small picture of the pattern; or all heads in the order of the metric. Hover previews a head, a
 * click or the arrow keys select it, shift makes a set.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, looks } = glassbox;

  const LEFT = 62;
  const BOTTOM = 20;
  const GROUP_GAP = 4; // pixels between heads that do not share a key/value head
  const FAINT = 0.13; // opacity of heads that the threshold leaves out
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const show = (metric, value) => (value == null ? '–' : metric === 'distance' ? value.toFixed(1) : dom.f3(value));

  // ---- where a head stands ----

  /** Places of all heads on a canvas, in their own place or by rank. */
  class Layout {
    constructor(w, h, grid, sorted) {
      const { n_layer: layers, n_head: heads, n_kv_head: groups } = store.model;
      Object.assign(this, { layers, heads, shared: heads / groups, sorted });
      this.gap = sorted || groups === heads || groups === 1 ? 0 : GROUP_GAP;
      this.cw = (w - LEFT - 2) / layers;
      this.ch = (h - (sorted ? 2 : BOTTOM) - 2 - this.gap * (groups - 1)) / heads;
      if (sorted) this.rank(grid.values);
    }

    rank(values) {
      const size = (i) => values[i] ?? -Infinity;
      this.order = values.map((_, i) => i).sort((a, b) => size(b) - size(a) || a - b);
      this.ranks = new Array(values.length);
      this.order.forEach((i, rank) => {
        this.ranks[i] = rank;
      });
    }

    top(row) {
      return 1 + row * this.ch + Math.floor(row / this.shared) * this.gap;
    }

    place(layer, head) {
      if (!this.sorted) return [layer, head];
      const rank = this.ranks[layer * this.heads + head];
      return [rank % this.layers, Math.floor(rank / this.layers)];
    }

    /** Pixel box of a cell, its right and lower edge one pixel short so that a hairline stays between cells. */
    box(layer, head) {
      const [column, row] = this.place(layer, head);
      const left = (i) => Math.round(LEFT + 1 + i * this.cw);
      const [x, y] = [left(column), Math.round(this.top(row))];
      const hair = Math.min(this.cw, this.ch) > 4 ? 1 : 0;
      return [x, y, left(column + 1) - x - hair, Math.round(this.top(row) + this.ch) - y - hair];
    }

    /** The head at a point of the canvas, or null. */
    at(x, y) {
      const column = Math.floor((x - LEFT - 1) / this.cw);
      let row = -1;
      for (let i = 0; i < this.heads; i++) if (y >= this.top(i) - this.gap / 2) row = i;
      const inside = column >= 0 && column < this.layers && row >= 0 && y < this.top(row) + this.ch + this.gap;
      if (!inside) return null;
      if (!this.sorted) return { layer: column, head: row };
      const i = this.order[row * this.layers + column];
      return { layer: Math.floor(i / this.heads), head: i % this.heads };
    }
  }

  // ---- drawing ----

  /** Place of a value on the ramp; all equal means all at its start. */
  const shareOf = (grid, value) => (grid.max > grid.min ? (value - grid.min) / (grid.max - grid.min) : 0);

  const isLeftOut = (grid, least, i) => Boolean(least && grid.values && !(shareOf(grid, grid.values[i] ?? -Infinity) >= least));

  function drawValues(g, layout, grid, least) {
    const { rgb } = dom.lut();
    for (let layer = 0; layer < layout.layers; layer++) {
      for (let head = 0; head < layout.heads; head++) {
        const i = layer * layout.heads + head;
        const value = grid && grid.values[i];
        const known = grid && value != null;
        g.globalAlpha = grid && isLeftOut(grid, least, i) ? FAINT : 1;
        g.fillStyle = known ? rgb[Math.round(255 * Math.max(0, Math.min(1, shareOf(grid, value))))] : dom.css('--sunk');
        g.fillRect(...layout.box(layer, head));
      }
    }
    g.globalAlpha = 1;
  }

  const picture = document.createElement('canvas');

  /** One head's cells as an image, its largest weight the end of the ramp. */
  function paintPicture({ cells, side }, i) {
    const image = new ImageData(side, side);
    const pixels = new Uint32Array(image.data.buffer);
    const { u32 } = dom.lut();
    const from = i * side * side;
    let top = 1;
    for (let k = from; k < from + side * side; k++) if (cells[k] > top) top = cells[k];
    for (let r = 0; r < side; r++) {
      for (let c = 0; c <= r; c++) pixels[r * side + c] = u32[Math.round((255 * cells[from + r * side + c]) / top)];
    }
    picture.width = picture.height = side;
    picture.getContext('2d').putImageData(image, 0, 0);
  }

  function drawPictures(g, layout, grid) {
    for (let layer = 0; layer < layout.layers; layer++) {
      for (let head = 0; head < layout.heads; head++) {
        const box = layout.box(layer, head);
        g.fillStyle = dom.css('--sunk');
        g.fillRect(...box);
        if (!grid || !grid.cells) continue;
        paintPicture(grid, layer * layout.heads + head);
        g.drawImage(picture, ...box);
      }
    }
  }

  /** Indices worth a label: every `step`th, and the last when it does not collide. */
  function ticks(count, size, room) {
    const step = [1, 2, 3, 4, 5, 10, 20].find((n) => n * size >= room) || 20;
    const list = [];
    for (let i = 0; i < count; i += step) list.push(i);
    const last = list[list.length - 1];
    if (last && last !== count - 1 && (count - 1 - last) * size < room * 0.8) list.pop();
    if (last !== count - 1) list.push(count - 1);
    return list;
  }

  function drawLabels(g, layout, h) {
    const { layers, heads, cw, ch } = layout;
    g.fillStyle = dom.css('--ink3');
    g.textBaseline = 'alphabetic';
    g.textAlign = 'right';
    if (layout.sorted) {
      g.fillText(glassbox.t('attn_most'), LEFT - 8, 1 + ch / 2 + 4);
      g.fillText(glassbox.t('attn_least'), LEFT - 8, layout.top(heads - 1) + ch / 2 + 4);
      return;
    }
    for (const head of ticks(heads, ch, Math.max(14, layout.gap ? layout.shared * ch : Math.min(4 * ch, 48)))) {
      g.fillText(head ? head : `${glassbox.t('attn_head')} 0`, LEFT - 12, layout.top(head) + ch / 2 + 4);
    }
    g.fillText(glassbox.t('attn_layer'), LEFT - 12, h - 4);
    g.textAlign = 'center';
    for (const layer of ticks(layers, cw, Math.max(22, Math.min(5 * cw, 66)))) g.fillText(layer, LEFT + 1 + (layer + 0.5) * cw, h - 4);
    drawGroups(g, layout);
  }

  /** A line along the heads that share one key/value head. */
  function drawGroups(g, layout) {
    const { gap, heads, shared, ch } = layout;
    if (!gap) return;
    g.fillStyle = dom.css('--line2');
    for (let row = 0; row < heads; row += shared) g.fillRect(LEFT - 6, layout.top(row), 2, shared * ch - 1);
  }

  function drawFrame(g, layout, { layer, head }, colour, width) {
    const [x, y, w, h] = layout.box(layer, head);
    for (const [style, line] of [[dom.css('--sur'), width + 2], [colour, width]]) {
      g.strokeStyle = style;
      g.lineWidth = line;
      g.strokeRect(x - 0.5, y - 0.5, w + 1, h + 1);
    }
  }

  /** Heads that make the picture below, the one under the pointer, the selected one, the pinned one. */
  function drawMarks(g, layout) {
    const { selection } = store;
    const look = glassbox.looking();
    const { heads } = glassbox.sights.sightAt(selection).args;
    if (heads.length > 1) for (const [layer, head] of heads) drawFrame(g, layout, { layer, head }, dom.css('--ink2'), 1);
    if (looks.pin) drawFrame(g, layout, looks.pin, dom.css('--at3'), 2);
    if (look.layer !== selection.layer || look.head !== selection.head) drawFrame(g, layout, look, dom.css('--ink2'), 1.5);
    drawFrame(g, layout, selection, dom.css('--ink'), 2);
  }

  // ---- the grid ----

  class HeadGrid {
    /** @param {{canvas: HTMLCanvasElement, shade: object, value: HTMLElement, count: HTMLElement}} nodes */
    constructor(nodes) {
      this.nodes = nodes;
      this.sorted = false;
      this.least = 0;
      this.draw = dom.debounceFrame(() => this.drawNow());
      this.feed = new glassbox.GridFeed(this.draw);
      this.attach();
    }

    layout(w, h) {
      const { grid } = this.feed;
      return new Layout(w, h, grid, Boolean(this.sorted && grid && grid.values));
    }

    drawNow() {
      const { canvas } = this.nodes;
      const { g, w, h } = dom.fitCanvas(canvas);
      if (!w || !store.model) return;
      const { grid, metric } = this.feed;
      const mine = grid && grid.metric === metric ? grid : null;
      const layout = this.layout(w, h);
      if (metric === 'pattern') drawPictures(g, layout, mine);
      else drawValues(g, layout, mine && mine.values ? mine : null, this.least);
      drawLabels(g, layout, h);
      drawMarks(g, layout);
      Object.assign(canvas.dataset, { layer: store.selection.layer, head: store.selection.head, metric, n: mine ? mine.n : 0 });
      this.write(mine);
    }

    /** Colour bar with its ends, the value of the head looked at, how many heads the threshold leaves. */
    write(grid) {
      const { t } = glassbox;
      const { shade, value, count, canvas } = this.nodes;
      const { metric, error } = this.feed;
      const { layer, head } = glassbox.looking();
      const end = (x) => (grid && grid.values ? String(Number(x.toFixed(metric === 'distance' ? 1 : 2))) : '');
      const [low, high] = grid && grid.values ? [grid.min, grid.max] : [0, 1];
      shade.show({
        gradient: dom.ramp(), low: end(low), high: end(high), unit: t(`attn_unit_${metric}`),
        at: end(low + this.least * (high - low)),
      });
      const number = grid && grid.values ? `  ${show(metric, grid.values[layer * store.model.n_head + head])}` : '';
      dom.setText(value, error || `L${layer} H${head}${number}`);
      const left = grid && grid.values && this.least ? grid.values.filter((_, i) => !isLeftOut(grid, this.least, i)).length : 0;
      dom.setText(count, left || (this.least && grid && grid.values) ? t('attn_left', left, grid.values.length) : '');
      canvas.setAttribute('aria-label', t('attn_grid_label', t(`attn_metric_${metric}`), value.textContent));
    }

    headAt(event) {
      if (!store.model) return null;
      const { left, top, width, height } = this.nodes.canvas.getBoundingClientRect();
      return this.layout(width, height).at(event.clientX - left, event.clientY - top);
    }

    attach() {
      const { canvas } = this.nodes;
      const hover = (place) => {
        const now = store.hover;
        if (place || (now && now.query == null && now.layer != null)) glassbox.hoverAt(place);
      };
      canvas.addEventListener('pointermove', (event) => {
        if (event.pointerType === 'mouse') hover(this.headAt(event));
      });
      canvas.addEventListener('pointerleave', () => hover(null));
      canvas.addEventListener('click', (event) => {
        const place = this.headAt(event);
        hover(null);
        if (place && event.shiftKey) glassbox.sights.toggleHead(place.layer, place.head);
        else if (place) this.pick(place);
      });
      canvas.addEventListener('keydown', (event) => this.onKey(event));
    }

    /** A click on one head looks at that head alone; a whole layer follows to the layer of the head. */
    pick(place) {
      if (looks.over.startsWith('set')) glassbox.look({ over: 'head' });
      glassbox.select(place);
    }

    onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { layer, head } = store.selection;
      if (event.key === 's') glassbox.sights.toggleHead(layer, head);
      else if (event.key in ARROWS) this.step(...ARROWS[event.key]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    /** The next head in a direction, as they stand on the grid. */
    step(right, down) {
      const { layer, head } = store.selection;
      const { width, height } = this.nodes.canvas.getBoundingClientRect();
      const layout = this.layout(width, height);
      if (!layout.sorted) return glassbox.select({ layer: layer + right, head: head + down });
      const count = layout.order.length;
      const rank = layout.ranks[layer * layout.heads + head] + right + down * layout.layers;
      const i = layout.order[((rank % count) + count) % count];
      return glassbox.select({ layer: Math.floor(i / layout.heads), head: i % layout.heads });
    }
  }

  glassbox.HeadGrid = HeadGrid;
})();
